-- Accounts: users, login sessions, one-time tokens, revocations and the
-- failures of sign-in that survive a restart.

create table app.users (
    id                 uuid not null,
    email              text not null,
    email_verified_at  timestamptz, -- a link that was mailed to it was used
    pending_email      text,        -- asked for; email as soon as proved
    password_hash      text not null,
    first_name         text not null,
    last_name          text not null,
    phone              text,
    roles              text[] not null default '{member}',
    status             text not null default 'active',
    preferred_language text not null default 'en',
    timezone           text not null default 'UTC',
    token_epoch        int not null default 1,
    version            int not null default 1,
    last_login_at      timestamptz,
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    constraint users_pkey primary key (id),
    constraint users_email_check check (email = pg_catalog.lower(email)),
    constraint users_pending_email_check check (
        pending_email = pg_catalog.lower(pending_email)),
    constraint users_status_check check (
        status in ('active', 'limited', 'suspended', 'deleted')),
    constraint users_roles_check check (
        roles <@ array['admin', 'moderator', 'support', 'organizer',
            'practitioner', 'worker', 'driver', 'scanner', 'member']
        and 'member' = any (roles))
);

create unique index users_email_key on app.users (email)
    where status <> 'deleted';

create table app.login_sessions (
    id                  uuid not null,
    user_id             uuid not null,
    counter             bigint not null default 1,
    rotated_at          timestamptz not null,
    remember            boolean not null default false,
    user_agent          text,
    ip                  text,
    created_at          timestamptz not null,
    expires_at          timestamptz not null,
    absolute_expires_at timestamptz not null,
    revoked_at          timestamptz,
    reason              text,
    constraint login_sessions_pkey primary key (id),
    constraint login_sessions_expires_check check (
        expires_at <= absolute_expires_at), -- a refresh asks for this alone
    constraint login_sessions_user_fkey foreign key (user_id)
        references app.users (id)
);

create index login_sessions_user_idx on app.login_sessions (user_id)
    where revoked_at is null;
create index login_sessions_expires_idx on app.login_sessions (expires_at);

create table app.one_time_tokens (
    token_hash bytea not null,
    user_id    uuid not null,
    purpose    text not null,
    email      text not null, -- where it was mailed: what it proves
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at    timestamptz,
    constraint one_time_tokens_pkey primary key (token_hash),
    constraint one_time_tokens_purpose_check check (
        purpose in ('password_reset', 'email_verify', 'email_change')),
    constraint one_time_tokens_user_fkey foreign key (user_id)
        references app.users (id)
);

create index one_time_tokens_user_idx on app.one_time_tokens (user_id);
create index one_time_tokens_expires_idx on app.one_time_tokens (expires_at);

-- what edges must refuse from now on: "sid <uuid> <until ms>", "device <uuid>
-- <until ms>" and "user <uuid> <epoch>"
create table app.revocations (
    id         bigint generated always as identity,
    entry      text not null,
    at         timestamptz not null,
    expires_at timestamptz not null,
    constraint revocations_pkey primary key (id)
);

create index revocations_at_idx on app.revocations (at);
create index revocations_expires_idx on app.revocations (expires_at);

-- How long the access tokens live that edges sign: ACCESS_TTL may differ from
-- edge to edge, and from what it was yesterday.
create table app.access_ttls (
    ttl_s   int not null,
    said_at timestamptz not null, -- by an edge, lately
    constraint access_ttls_pkey primary key (ttl_s)
);

-- mails that were asked for, by address prefix, or by purpose and account,
-- and by hour of the clock
create table app.mail_budget (
    prefix text not null,
    hour   bigint not null,
    n      int not null,
    constraint mail_budget_pkey primary key (prefix, hour)
);

-- Failures of a pair of account and address prefix, over all edges; at_ms: the
-- edge's time of the last one.
create table app.auth_throttle (
    key        text not null,
    fails      int not null,
    at_ms      bigint not null,
    changed_at timestamptz not null,
    constraint auth_throttle_pkey primary key (key)
);
create index auth_throttle_changed_idx on app.auth_throttle (changed_at);
