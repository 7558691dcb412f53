#!/bin/sh
# Template units beside those of a folder: dmarc-milter@NAME and its companions serve /etc/dmarc-milter-NAME/dmarc-milter.toml, with state and
# runtime folders of their own. They are made from the plain units, so that all are hardened alike.
set -eu
folder=$1
for unit in dmarc-milter dmarc-milter-drain dmarc-milter-report dmarc-milter-summary dmarc-milter-web; do
    for kind in service timer; do
        [ -e "$folder/$unit.$kind" ] || continue
        sed -E -e 's/^(Description=.*)/\1 (%i)/' \
            -e '/^(Wants|PartOf|ReloadPropagatedFrom|After|Before)=/s/(dmarc-milter(-[a-z]+)?)\.(service|timer)/\1@%i.\3/g' \
            -e 's,^(StateDirectory|RuntimeDirectory)=dmarc-milter$,\1=dmarc-milter-%i,' \
            -e 's,^Exec(Start|Reload)=[^ ]+/dmarc-milter,& --config /etc/dmarc-milter-%i/dmarc-milter.toml,' \
            -e 's,^(#LoadCredential=.*:/etc/dmarc-milter)/,\1-%i/,' \
            "$folder/$unit.$kind" > "$folder/$unit@.$kind"
    done
done
