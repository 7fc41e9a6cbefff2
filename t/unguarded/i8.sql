-- I-8: a nonce is neither locked nor unique, and what it was told is forgotten.
\ir _cut.sql
select t.cut('api.orders_validate', 'perform pg_advisory_xact_lock(v_key);',
    'null;');
select t.cut('api.orders_validate', 'and r.nonce = j.nonce),',
    'and r.nonce = j.nonce and false),');
drop index app.scan_events_nonce_key;
