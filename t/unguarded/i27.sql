-- I-27: uses of a promo code are judged without a lock.
\ir i1.sql
alter table app.promo_codes drop constraint promo_codes_max_uses_check;
