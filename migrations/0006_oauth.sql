-- Identities of other issuers, and sign-ins by them.

-- An identity is (issuer, subject) and nothing else (OpenID Connect Core
-- 5.7); name and address are what it had when it was last used.
create table app.oauth_identities (
    id           uuid not null,
    user_id      uuid not null,
    issuer       text not null,
    subject      text not null,
    provider     text,        -- its name in the settings; null: by tokens only
    email        text,
    created_at   timestamptz not null,
    last_used_at timestamptz,
    constraint oauth_identities_pkey primary key (id),
    constraint oauth_identities_subject_key unique (issuer, subject),
    constraint oauth_identities_subject_check check (
        pg_catalog.length(subject) between 1 and 255),
    constraint oauth_identities_user_fkey foreign key (user_id)
        references app.users (id)
);

create index oauth_identities_user_idx on app.oauth_identities (user_id);

-- when the epoch was raised last: tokens of other issuers have no epoch, but
-- the time that they were made
alter table app.users add column epoch_at timestamptz;

-- by whom who it is was shown; null: a password
alter table app.mfa_challenges add column provider text;

-- flows of sign-in that came back, and ID tokens: each counts once
create table app.oauth_states (
    state_sha256 bytea not null,
    expires_at   timestamptz not null,
    constraint oauth_states_pkey primary key (state_sha256)
);

create index oauth_states_expires_idx on app.oauth_states (expires_at);
