-- Second factors: a code is right as often as it is shown.
\ir _cut.sql
select t.cut('app.mfa_prove', 'and f.last_step < step');
select t.cut('app.mfa_prove', 'and c.used_at is null');
select t.cut('app.mfa_challenge_open', 'and c.used_at is null');
