-- I-8: a nonce is neither locked nor unique.
\ir _cut.sql
select t.cut('api.orders_validate', 'perform pg_advisory_xact_lock(v_key);',
    'null;');
select t.cut('api.orders_validate', 'for no key update of t');
drop index app.scan_events_nonce_key;
