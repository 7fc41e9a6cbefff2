-- auth.sessions: where somebody is signed in, and the end of it.

-- A User-Agent in plain words: "Firefox on Linux", "Safari on iPhone"; of what
-- is no browser its product's name.  Whatever else it says does not come
-- through: no controls, nothing that changes the direction of a line.
create or replace function app.device_name(user_agent text)
returns text
language sql immutable
return (
    select case
        when user_agent ~ '^(Mozilla|Opera)/'
            then coalesce(b.name, 'Browser') || coalesce(' on ' || s.name, '')
        else coalesce(substring(user_agent
            from '^[!#$%&''*+.^_`|~0-9A-Za-z-]{1,60}'), 'Unknown device') end
    from (select case
        when user_agent ~ 'Edg(e|A|iOS)?/' then 'Edge'
        when user_agent ~ 'OPR/|OPiOS/|Opera' then 'Opera'
        when user_agent ~ 'SamsungBrowser/' then 'Samsung Internet'
        when user_agent ~ 'Firefox/|FxiOS/' then 'Firefox'
        when user_agent ~ 'Chromium/' then 'Chromium'
        when user_agent ~ 'Chrome/|CriOS/' then 'Chrome'
        when user_agent ~ 'Safari/' then 'Safari' end) b (name)
    cross join (select case
        when user_agent ~ 'iPhone' then 'iPhone'
        when user_agent ~ 'iPad' then 'iPad'
        when user_agent ~ 'Android' then 'Android'
        when user_agent ~ 'Windows' then 'Windows'
        when user_agent ~ 'CrOS' then 'ChromeOS'
        when user_agent ~ 'Macintosh|Mac OS X' then 'macOS'
        when user_agent ~ 'Linux|X11' then 'Linux' end) s (name));

grant execute on function app.device_name(text) to stoa_edge;

create or replace view api.sessions_live as
select s.id, s.user_id, s.rotated_at, s.created_at as opened_at,
    app.device_name(s.user_agent) as device_name, s.user_agent, s.ip,
    app.ts(s.created_at) as created_at, app.ts(s.rotated_at) as last_used_at,
    app.ts(s.expires_at) as expires_at, s.remember
from app.login_sessions s
where s.revoked_at is null and s.expires_at > app.now();

create or replace view api.acl_session as
select s.id, s.user_id, 'owner' as relation
from api.sessions_live s;

-- Takes the account's row, so that those who end sessions of one account do
-- it one by one; false: the session that asks was ended meanwhile.  Of two
-- sessions that end each other, the first remains.
create or replace function app.sessions_lock(ctx api.ctx)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from app.users u
    where u.id = (ctx).actor
    for no key update;

    perform app.pause('sessions_lock');

    return not exists (
        select from app.login_sessions s
        where s.id = (ctx).session and s.revoked_at is not null);
end $$;

create or replace function api.session_end(ctx api.ctx, id uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_emit json;
begin
    if not app.sessions_lock(ctx) then
        return app.fail('TOKEN_REVOKED');
    end if;

    if not exists (
        select from api.sessions_live s
        where s.id = session_end.id and s.user_id = (ctx).actor)
    then
        return app.fail('NOT_FOUND');
    end if;

    v_emit := app.sessions_revoke(array[session_end.id],
        case when session_end.id = (ctx).session then 'logout'
            else 'ended by its owner' end);

    -- a logout of that session was faster
    if v_emit is null then
        return app.fail('NOT_FOUND');
    end if;

    perform app.audit(ctx, 'auth.session_end', 'session',
        session_end.id::text, jsonb_build_object('current',
            session_end.id is not distinct from (ctx).session));

    return app.ok(200, '{"ended":1}', emit => v_emit);
end $$;

create or replace function api.sessions_end(ctx api.ctx)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_emit json;
    v_ended int;
begin
    if not app.sessions_lock(ctx) then
        return app.fail('TOKEN_REVOKED');
    end if;

    v_emit := app.sessions_revoke(array(
            select s.id
            from api.sessions_live s
            where s.user_id = (ctx).actor
                and s.id is distinct from (ctx).session),
        'ended by its owner');
    v_ended := coalesce(json_array_length(v_emit), 0);

    perform app.audit(ctx, 'auth.sessions_end', 'session',
        (ctx).session::text, jsonb_build_object('ended', v_ended));

    return app.ok(200, json_build_object('ended', v_ended), emit => v_emit);
end $$;
