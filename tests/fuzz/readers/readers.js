'use strict';
// What JavaScript mail readers find in a From field. Standard input: one JSON list of values (base64) on a line. Standard output:
// one line for each, a list with an object for each value, from the reader's name to the addresses in its `address` slots.

const { createInterface } = require('node:readline');
const nodemailer = require('nodemailer/lib/addressparser');
const emailjs = require('emailjs-addressparser').default;
const postal = require('postal-mime').addressParser;
const postalOlder = require('postal-mime-older').addressParser;
const { MailParser } = require('mailparser');
const { MailParser: MailParserOlder } = require('mailparser-older');

const parser = new MailParser();
const parserOlder = new MailParserOlder();

function addresses(found) {
    return found.flatMap(each => (each.group ? addresses(each.group) : each.address ? [each.address] : []));
}

// The whole of a message's header goes through mailparser's own code, from the octets on.
function parsed(mailparser, octets) {
    const headers = mailparser.processHeaders([{ key: 'from', line: 'From:' + octets.toString('latin1') }]);
    return addresses([headers.get('from')].flat().flatMap(each => (each && each.value) || []));
}

const READERS = {
    nodemailer: (octets, text) => addresses(nodemailer(text)),
    emailjs: (octets, text) => addresses(emailjs(text)),
    mailparser: octets => parsed(parser, octets),
    'mailparser-older': octets => parsed(parserOlder, octets),
    'postal-mime': (octets, text) => addresses(postal(text)),
    'postal-mime-older': (octets, text) => addresses(postalOlder(text))
};

function read(value) {
    const octets = Buffer.from(value, 'base64');
    const text = octets.toString('utf8').replace(/\r?\n(?=[ \t])/g, '').trim();
    const found = {};
    for (const [name, reader] of Object.entries(READERS)) {
        try {
            found[name] = reader(octets, text);
        } catch (error) {
            found[name] = []; // a reader that gives up shows nobody
        }
    }
    return found;
}

createInterface({ input: process.stdin }).on('line', line => {
    process.stdout.write(JSON.stringify(JSON.parse(line).map(read)) + '\n');
});
