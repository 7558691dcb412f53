"""Lists of milters in main.cf and master.cf: whose each element is, and what they should be."""
