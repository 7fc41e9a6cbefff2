-- Second factors: secrets of authenticator apps, sealed by the edge, whose
-- key is not here; recovery codes as hashes; sign-ins that wait for a code;
-- and how and when a session's owner showed who he is.

create table app.mfa_factors (
    id           uuid not null,
    user_id      uuid not null,
    kind         text not null default 'totp',
    secret       bytea not null,
    last_step    bigint not null default 0, -- no code of it or before is taken
    wrong        int not null default 0,    -- codes since the last right one
    rest_until   timestamptz,               -- no code is taken before
    created_at   timestamptz not null,
    confirmed_at timestamptz,               -- null: not on yet
    last_used_at timestamptz,
    constraint mfa_factors_pkey primary key (id),
    constraint mfa_factors_kind_check check (kind = 'totp'),
    constraint mfa_factors_user_fkey foreign key (user_id)
        references app.users (id)
);

-- one that is on, and one that may become it
create unique index mfa_factors_user_key on app.mfa_factors
    (user_id, kind, (confirmed_at is not null));

create table app.mfa_recovery_codes (
    user_id    uuid not null,
    code_hash  bytea not null,
    created_at timestamptz not null,
    used_at    timestamptz,
    constraint mfa_recovery_codes_pkey primary key (user_id, code_hash),
    constraint mfa_recovery_codes_user_fkey foreign key (user_id)
        references app.users (id)
);

-- the password was right, the code is awaited
create table app.mfa_challenges (
    id         uuid not null,
    user_id    uuid not null,
    epoch      int not null,  -- the account's: what changes it ends this
    prefix     text not null, -- of the address that may answer
    remember   boolean not null,
    wrong      int not null default 0,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at    timestamptz,
    constraint mfa_challenges_pkey primary key (id),
    constraint mfa_challenges_user_fkey foreign key (user_id)
        references app.users (id)
);

create index mfa_challenges_user_idx on app.mfa_challenges (user_id);
create index mfa_challenges_expires_idx on app.mfa_challenges (expires_at);

-- RFC 8176 names of what was shown, and when; null: when the session began
alter table app.login_sessions
    add column amr text[] not null default '{pwd}',
    add column auth_at timestamptz;

-- of a refusal, mfa says that a code was wrong
alter type api.grant
    add attribute auth_time bigint,
    add attribute amr text[],
    add attribute mfa boolean;
