-- What people agreed to.

-- Append-only: what holds is the latest row of a kind.  subject: an account,
-- or the random id that a browser has kept for itself.
create table app.consents (
    id             uuid not null,
    subject        uuid not null,
    user_id        uuid,        -- the subject, when it is an account
    kind           text not null,
    granted        boolean not null,
    policy_version text not null,
    ip_prefix      text,
    created_at     timestamptz not null,
    constraint consents_pkey primary key (id),
    constraint consents_user_fkey foreign key (user_id)
        references app.users (id),
    constraint consents_subject_check check (
        user_id is null or user_id = subject),
    constraint consents_kind_check check (
        kind in ('analytics', 'marketing', 'personalization'))
);

create index consents_subject_idx on app.consents (subject, kind, id desc);
create index consents_user_idx on app.consents (user_id);

create trigger consents_append_only
    before update or delete or truncate on app.consents
    for each statement execute function app.append_only();
