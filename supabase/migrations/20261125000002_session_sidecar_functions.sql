-- session-sidecar, 2 of 4: functions, called with the secret key as POST /rest/v1/rpc/NAME {"request": {…}}.
--
-- One JSON value in, one out, at most 500 sessions a call. Malformed requests are refused with HTTP 400 and the code
-- PT400. They run with the rights of the caller: service_role, or session_sidecar, whose token may be for one user or
-- one session (a key beyond it: HTTP 403, PT403). Time is the database's, read once all rows are locked; rows are locked
-- in the order of their keys, so that two calls never wait for each other in a circle.

-- What the token of a request is for, as the folder of the bucket that it opens: 'user/session/', 'user/', '' for all of
-- it; null for nothing. The claims are sidecar_user and, with it, sidecar_session; one that is no id opens nothing.
create or replace function public.session_sidecar_prefix()
returns text language plpgsql stable set search_path = '' as $$
declare
  claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  -- Without a slash and a leading dot: no id is a folder of somebody else's, and none is that of all history.
  id constant text := '^[A-Za-z0-9_@+=-][A-Za-z0-9_.@+=-]{0,127}$';
begin
  if jsonb_typeof(claims) is distinct from 'object' then
    return null;
  elsif not claims ? 'sidecar_user' then
    return case when not claims ? 'sidecar_session' then '' end;
  elsif jsonb_typeof(claims -> 'sidecar_user') <> 'string' or (claims ->> 'sidecar_user') !~ id then
    return null;
  elsif not claims ? 'sidecar_session' then
    return (claims ->> 'sidecar_user') || '/';
  elsif jsonb_typeof(claims -> 'sidecar_session') <> 'string' or (claims ->> 'sidecar_session') !~ id then
    return null;
  end if;
  return (claims ->> 'sidecar_user') || '/' || (claims ->> 'sidecar_session') || '/';
end $$;

-- Whether the token of a request is for a session. Ids are compared whole: user `a` is not `ab`.
create or replace function public.session_sidecar_reaches(user_id text, session_id text)
returns boolean language plpgsql stable set search_path = '' as $$
declare
  prefix constant text := public.session_sidecar_prefix();
begin
  return coalesce(
    prefix = '' or strpos(user_id, '/') = 0 and prefix in (user_id || '/', user_id || '/' || session_id || '/'), false);
end $$;

-- The keys of a request, one row each, in the order asked (place). Refuses what is malformed, and what is not the caller's.
create or replace function public.session_sidecar_keys(request jsonb, with_epoch boolean)
returns table (place bigint, user_id text, session_id text, holder text, epoch bigint, above bigint, head text)
language plpgsql stable set search_path = '' rows 10 as $$
declare
  keys constant jsonb := request -> 'keys';
  -- No epoch comes near; far above it nothing needs to be told apart.
  largest constant numeric := 1000000000000;
begin
  if jsonb_typeof(request) is distinct from 'object' then
    raise sqlstate 'PT400' using message = 'the request is no object';
  elsif jsonb_typeof(request -> 'bucket') is distinct from 'string'
    or length(request ->> 'bucket') not between 1 and 100 then
    raise sqlstate 'PT400' using message = 'bucket is no name';
  elsif jsonb_typeof(keys) is distinct from 'array' then
    raise sqlstate 'PT400' using message = 'keys is no array';
  elsif jsonb_array_length(keys) > 500 then
    raise sqlstate 'PT400' using message = 'more than 500 keys';
  elsif exists (
    select from jsonb_array_elements(keys) k
    where jsonb_typeof(k -> 'user') is distinct from 'string'
      or jsonb_typeof(k -> 'session') is distinct from 'string'
      or jsonb_typeof(k -> 'holder') is distinct from 'string'
      or length(k ->> 'user') not between 1 and 128
      or length(k ->> 'session') not between 1 and 128
      or length(k ->> 'holder') not between 1 and 200
      or coalesce(jsonb_typeof(k -> 'head'), 'null') not in ('null', 'string')
      or length(k ->> 'head') > 200
      or case jsonb_typeof(k -> 'above')
        when 'number' then (k ->> 'above')::numeric < 0 or (k ->> 'above')::numeric % 1 <> 0
        else coalesce(jsonb_typeof(k -> 'above'), 'null') <> 'null'
      end
      or with_epoch and case jsonb_typeof(k -> 'epoch')
        when 'number' then (k ->> 'epoch')::numeric not between 1 and 99999999 or (k ->> 'epoch')::numeric % 1 <> 0
        else true
      end
  ) then
    raise sqlstate 'PT400' using message = 'a key is malformed';
  elsif exists (
    select from jsonb_array_elements(keys) k group by k ->> 'user', k ->> 'session' having count(*) > 1
  ) then
    raise sqlstate 'PT400' using message = 'a key stands there twice';
  end if;
  if current_user = 'session_sidecar' then
    -- Row-level security would refuse it too, or hide the row, which looks like a session that nobody has.
    if not (request ->> 'bucket') = any (public.session_sidecar_buckets()) then
      raise sqlstate 'PT403' using message = 'the role session_sidecar has no right to this bucket';
    elsif exists (
      select from jsonb_array_elements(keys) k where not public.session_sidecar_reaches(k ->> 'user', k ->> 'session')
    ) then
      raise sqlstate 'PT403' using message = 'the token is for other sessions';
    end if;
  end if;
  return query
    select k.place, k.key ->> 'user', k.key ->> 'session', k.key ->> 'holder',
      case when with_epoch then (k.key ->> 'epoch')::bigint end,
      least(coalesce((k.key ->> 'above')::numeric, 0), largest)::bigint,
      k.key ->> 'head'
    from jsonb_array_elements(keys) with ordinality k (key, place);
end $$;

-- The time to live of a request, 1 s to 1 h.
create or replace function public.session_sidecar_ttl(request jsonb)
returns interval language plpgsql immutable set search_path = '' as $$
begin
  if jsonb_typeof(request -> 'ttl') is distinct from 'number' or (request ->> 'ttl')::numeric not between 1 and 3600 then
    raise sqlstate 'PT400' using message = 'ttl is no number of 1 to 3600 seconds';
  end if;
  return make_interval(secs => (request ->> 'ttl')::double precision);
end $$;

-- A switch of a request; off where it is left out.
create or replace function public.session_sidecar_switch(request jsonb, name text)
returns boolean language plpgsql immutable set search_path = '' as $$
begin
  if coalesce(jsonb_typeof(request -> name), 'null') not in ('null', 'boolean') then
    raise sqlstate 'PT400' using message = name || ' is neither true nor false';
  end if;
  return coalesce((request ->> name)::boolean, false);
end $$;

-- A time as every answer has it: RFC 3339, UTC, microseconds.
create or replace function public.session_sidecar_time(at timestamptz)
returns text language sql stable set search_path = '' as $$
  select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- Waits for the rows of a request that exist, in the order of their keys, and keeps them until the transaction ends.
create or replace function public.session_sidecar_lock(request jsonb, with_epoch boolean)
returns void language plpgsql set search_path = '' as $$
begin
  perform from public.session_sidecar_leases l
    join public.session_sidecar_keys(request, with_epoch) k using (user_id, session_id)
    where l.bucket = request ->> 'bucket'
    order by l.user_id, l.session_id
    for update of l;
end $$;

-- Asks for sessions.
--   {"bucket", "ttl", "ask", "all_or_none", "keys": [{"user", "session", "holder", "above"}]}
--   {"now", "leases": [{"user", "session", "granted": true, "epoch", "expires_in", "head"}
--                    | {"user", "session", "granted": false, "reason", "holder", "expires_in", "epoch"}]}
-- A grant has an epoch above that of the row and above `above`, the highest that the bucket showed. Reasons:
--   hostile  `above` is more than a million higher than the row's epoch, or there is no higher epoch left
--   held     another holder's lease has not run out; with `ask` the wish for it is recorded
--   wished   it is free, but another asked for it within 20 s, and this call does not ask
--   others   it is free, but another key of an all_or_none was refused
create or replace function public.acquire_session_leases(request jsonb)
returns jsonb language plpgsql volatile security invoker set search_path = '' as $$
declare
  ttl constant interval := public.session_sidecar_ttl(request);
  ask constant boolean := public.session_sidecar_switch(request, 'ask');
  all_or_none constant boolean := public.session_sidecar_switch(request, 'all_or_none');
  moment timestamptz;
  answer jsonb;
begin
  -- A session that was never leased is at epoch 0. A hostile request makes no row.
  insert into public.session_sidecar_leases (bucket, user_id, session_id)
    select request ->> 'bucket', k.user_id, k.session_id from public.session_sidecar_keys(request, false) k
    where k.above <= 1000000
    order by k.user_id collate "C", k.session_id collate "C"
    on conflict do nothing;
  perform public.session_sidecar_lock(request, false);
  moment := clock_timestamp();
  with judged as (
    select k.place, k.user_id, k.session_id, k.holder as asker, k.above,
      coalesce(l.epoch, 0) as epoch, l.holder, l.expires_at, l.head,
      case
        when k.above > coalesce(l.epoch, 0) + 1000000 or greatest(l.epoch, k.above) >= 99999999 then 'hostile'
        when l.holder <> k.holder and l.expires_at > moment then 'held'
        when not ask and l.wish_by <> k.holder and l.wish_at > moment - interval '20 s' then 'wished'
      end as refusal
    from public.session_sidecar_keys(request, false) k
    left join public.session_sidecar_leases l
      on l.bucket = request ->> 'bucket' and l.user_id = k.user_id and l.session_id = k.session_id
  ), decided as (
    select j.*,
      coalesce(j.refusal, case when all_or_none and bool_or(j.refusal is not null) over () then 'others' end) as reason
    from judged j
  ), granted as (
    update public.session_sidecar_leases l
    set epoch = greatest(l.epoch, d.above) + 1, holder = d.asker, granted_at = moment, expires_at = moment + ttl,
      wish_by = null, wish_at = null, updated_at = moment
    from decided d
    where d.reason is null
      and l.bucket = request ->> 'bucket' and l.user_id = d.user_id and l.session_id = d.session_id
    returning l.user_id, l.session_id, l.epoch
  ), wished as (
    update public.session_sidecar_leases l
    set wish_by = d.asker, wish_at = moment, updated_at = moment
    from decided d
    where ask and d.reason = 'held'
      and l.bucket = request ->> 'bucket' and l.user_id = d.user_id and l.session_id = d.session_id
  )
  select jsonb_agg(
    jsonb_build_object('user', d.user_id, 'session', d.session_id, 'granted', d.reason is null)
    || case when d.reason is null
      then jsonb_build_object('epoch', g.epoch, 'expires_in', extract(epoch from ttl), 'head', d.head)
      else jsonb_build_object('epoch', d.epoch, 'expires_in', extract(epoch from d.expires_at - moment),
        'holder', d.holder, 'reason', d.reason)
    end order by d.place)
  into answer
  from decided d left join granted g on g.user_id = d.user_id and g.session_id = d.session_id;
  return jsonb_build_object('now', public.session_sidecar_time(moment), 'leases', coalesce(answer, '[]'));
end $$;

-- Goes on with sessions, and remembers the newest commit.
--   {"bucket", "ttl", "keys": [{"user", "session", "holder", "epoch", "head"}]}
--   {"now", "leases": [{"user", "session", "state", "epoch", "expires_in", "holder"}]}
-- States:
--   held     it is ours, also when it ran out and nobody took it. A row that knows less than the holder (the database
--            went back in time) is set to what the holder says: its epoch was claimed in the bucket
--   wanted   the same, and another asked for it within 20 s
--   free     it was released; a renewal that comes late does not undo that
--   taken    another grant was made
create or replace function public.renew_session_leases(request jsonb)
returns jsonb language plpgsql volatile security invoker set search_path = '' as $$
declare
  ttl constant interval := public.session_sidecar_ttl(request);
  moment timestamptz;
  answer jsonb;
begin
  insert into public.session_sidecar_leases (bucket, user_id, session_id)
    select request ->> 'bucket', k.user_id, k.session_id from public.session_sidecar_keys(request, true) k
    order by k.user_id collate "C", k.session_id collate "C"
    on conflict do nothing;
  perform public.session_sidecar_lock(request, true);
  moment := clock_timestamp();
  with judged as (
    select k.place, k.user_id, k.session_id, k.holder, k.epoch, k.head,
      l.epoch as row_epoch, l.holder as row_holder, l.expires_at,
      case
        when l.epoch < k.epoch then 'behind'
        when l.epoch > k.epoch or l.holder <> k.holder then 'taken'
        when l.holder is null then 'free'
        when l.wish_by <> k.holder and l.wish_at > moment - interval '20 s' then 'wanted'
        else 'held'
      end as verdict
    from public.session_sidecar_keys(request, true) k
    join public.session_sidecar_leases l
      on l.bucket = request ->> 'bucket' and l.user_id = k.user_id and l.session_id = k.session_id
  ), renewed as (
    update public.session_sidecar_leases l
    set epoch = j.epoch, holder = j.holder, expires_at = moment + ttl,
      granted_at = case when j.verdict = 'behind' then moment else l.granted_at end,
      head = greatest(l.head, j.head collate "C"), updated_at = moment
    from judged j
    where j.verdict in ('behind', 'wanted', 'held')
      and l.bucket = request ->> 'bucket' and l.user_id = j.user_id and l.session_id = j.session_id
    returning l.user_id, l.session_id, l.epoch, l.holder, l.expires_at
  )
  select jsonb_agg(jsonb_build_object(
      'user', j.user_id, 'session', j.session_id,
      'state', case when j.verdict = 'behind' then 'held' else j.verdict end,
      'epoch', coalesce(r.epoch, j.row_epoch), 'holder', coalesce(r.holder, j.row_holder),
      'expires_in', extract(epoch from coalesce(r.expires_at, j.expires_at) - moment)) order by j.place)
  into answer
  from judged j left join renewed r on r.user_id = j.user_id and r.session_id = j.session_id;
  return jsonb_build_object('now', public.session_sidecar_time(moment), 'leases', coalesce(answer, '[]'));
end $$;

-- Gives sessions back. What is no longer the caller's stays as it is; so does a wish.
--   {"bucket", "keys": [{"user", "session", "holder", "epoch", "head"}]}
--   {"now", "leases": [{"user", "session", "released"}]}
create or replace function public.release_session_leases(request jsonb)
returns jsonb language plpgsql volatile security invoker set search_path = '' as $$
declare
  moment timestamptz;
  answer jsonb;
begin
  perform public.session_sidecar_lock(request, true);
  moment := clock_timestamp();
  with released as (
    update public.session_sidecar_leases l
    set holder = null, expires_at = null, head = greatest(l.head, k.head collate "C"), updated_at = moment
    from public.session_sidecar_keys(request, true) k
    where l.bucket = request ->> 'bucket' and l.user_id = k.user_id and l.session_id = k.session_id
      and l.epoch = k.epoch and l.holder = k.holder
    returning k.place
  )
  select jsonb_agg(jsonb_build_object(
      'user', k.user_id, 'session', k.session_id, 'released', r.place is not null) order by k.place)
  into answer
  from public.session_sidecar_keys(request, true) k left join released r on r.place = k.place;
  return jsonb_build_object('now', public.session_sidecar_time(moment), 'leases', coalesce(answer, '[]'));
end $$;

-- Writes what people want to see of sessions into their table, which may be older than session-sidecar: ids are uuid or
-- text, session_data jsonb or json, and it may lack columns and constraints.
--   {"table", "rows": [{"user", "session", "sidecar": {…}, "status", "active", "create"}]}
--   {"table": true, "rows": [{"user", "session", "noted": true} | {"user", "session", "noted": false, "why"}]}
-- `sidecar` is merged into session_data.sidecar; all else of session_data stays. A row that cannot be written does not
-- keep the others from it.
create or replace function public.note_session_metadata(request jsonb)
returns jsonb language plpgsql volatile security invoker set search_path = '' as $$
declare
  target regclass;
  types jsonb;
  now_as jsonb;
  setting text;
  names text;
  vals text;
  answers jsonb := '{}';
  item record;
  changed bigint;
  foreign_data bigint;
  why text;
begin
  if jsonb_typeof(request) is distinct from 'object' then
    raise sqlstate 'PT400' using message = 'the request is no object';
  elsif jsonb_typeof(request -> 'table') is distinct from 'string' then
    raise sqlstate 'PT400' using message = 'table is no name';
  elsif jsonb_typeof(request -> 'rows') is distinct from 'array' then
    raise sqlstate 'PT400' using message = 'rows is no array';
  elsif jsonb_array_length(request -> 'rows') > 500 then
    raise sqlstate 'PT400' using message = 'more than 500 rows';
  elsif exists (
    select from jsonb_array_elements(request -> 'rows') r
    where jsonb_typeof(r -> 'user') is distinct from 'string'
      or jsonb_typeof(r -> 'session') is distinct from 'string'
      or jsonb_typeof(r -> 'sidecar') is distinct from 'object'
      or coalesce(jsonb_typeof(r -> 'status'), 'null') not in ('null', 'string')
      or coalesce(jsonb_typeof(r -> 'active'), 'null') not in ('null', 'boolean')
      or coalesce(jsonb_typeof(r -> 'name'), 'null') not in ('null', 'string')
      or coalesce(jsonb_typeof(r -> 'default'), 'null') not in ('null', 'boolean')
      or coalesce(jsonb_typeof(r -> 'create'), 'null') not in ('null', 'boolean')
  ) then
    raise sqlstate 'PT400' using message = 'a row is malformed';
  end if;
  if current_user = 'session_sidecar' and exists (
    select from jsonb_array_elements(request -> 'rows') r
    where not public.session_sidecar_reaches(r ->> 'user', r ->> 'session')
  ) then
    raise sqlstate 'PT403' using message = 'the token is for other sessions';
  end if;

  select c.oid into target
  from pg_catalog.pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relname = request ->> 'table' and c.relkind in ('r', 'p');
  -- Types by column (without a length, which a cast would cut to), and how the present time is written into a column;
  -- null: not at all.
  select jsonb_object_agg(a.attname, format_type(a.atttypid, -1)),
    jsonb_object_agg(a.attname, case
      when t.typname = 'timestamptz' then 'clock_timestamp()'
      when t.typcategory = 'D' then format('(clock_timestamp() at time zone ''UTC'')::%s', a.atttypid::regtype)
      when t.typcategory = 'S' then 'public.session_sidecar_time(clock_timestamp())'
    end)
  into types, now_as
  from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
  where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attgenerated = '';
  if target is null or not types ?& array['user_id', 'session_id', 'session_data'] then
    return jsonb_build_object('table', false, 'rows', '[]'::jsonb);
  end if;

  for item in
    select r.place, r.value ->> 'user' as user_id, r.value ->> 'session' as session_id, r.value -> 'sidecar' as sidecar,
      r.value ->> 'status' as status, (r.value ->> 'active')::boolean as active,
      r.value ->> 'name' as name, (r.value ->> 'default')::boolean as is_default,
      coalesce((r.value ->> 'create')::boolean, false) as make
    from jsonb_array_elements(request -> 'rows') with ordinality r (value, place)
    order by r.value ->> 'user' collate "C", r.value ->> 'session' collate "C", r.place
  loop
    why := null;
    begin
      if item.make then
        -- Without a unique constraint nothing else keeps two calls from inserting the same row.
        perform pg_advisory_xact_lock(hashtextextended(
          format('session-sidecar %s %L %L', target::oid, lower(item.user_id), lower(item.session_id)), 0));
      end if;

      -- $1 user, $2 session, $3 sidecar, $4 status, $5 active, $6 name, $7 default
      setting := format(
        'session_data = case
           when coalesce(jsonb_typeof(session_data::jsonb), ''null'') = ''null''
             then jsonb_build_object(''sidecar'', $3)
           when jsonb_typeof(session_data::jsonb) = ''object'' then session_data::jsonb || jsonb_build_object(''sidecar'',
             case when jsonb_typeof(session_data::jsonb -> ''sidecar'') = ''object''
               then session_data::jsonb -> ''sidecar'' else ''{}'' end || $3)
           else session_data::jsonb end::%s', types ->> 'session_data');
      if item.status is not null and types ? 'status' then
        setting := setting || format(', status = $4::%s', types ->> 'status');
      end if;
      if item.active is not null and types ? 'is_active' then
        setting := setting || format(', is_active = $5::%s', types ->> 'is_active');
      end if;
      if item.name is not null and types ? 'session_name' then
        setting := setting || format(', session_name = $6::%s', types ->> 'session_name');
      end if;
      if item.is_default is not null and types ? 'is_default' then
        setting := setting || format(', is_default = $7::%s', types ->> 'is_default');
      end if;
      if now_as ->> 'last_activity' is not null then
        setting := setting || ', last_activity = ' || (now_as ->> 'last_activity');
      end if;
      execute format(
        'with noted as (
           update %s set %s where user_id = $1::%s and session_id = $2::%s returning session_data::jsonb as data
         ) select count(*), count(*) filter (where jsonb_typeof(data) <> ''object'') from noted',
        target, setting, types ->> 'user_id', types ->> 'session_id')
        using item.user_id, item.session_id, item.sidecar, item.status, item.active, item.name, item.is_default
        into changed, foreign_data;

      if foreign_data > 0 then
        why := 'session_data is no object and was left alone';
      elsif changed = 0 and not item.make then
        why := 'no row';
      elsif changed = 0 then
        names := 'user_id, session_id, session_data';
        vals := format('$1::%s, $2::%s, jsonb_build_object(''sidecar'', $3)::%s',
          types ->> 'user_id', types ->> 'session_id', types ->> 'session_data');
        if item.status is not null and types ? 'status' then
          names := names || ', status';
          vals := vals || format(', $4::%s', types ->> 'status');
        end if;
        if types ? 'is_active' then
          names := names || ', is_active';
          vals := vals || format(', coalesce($5, true)::%s', types ->> 'is_active');
        end if;
        if item.name is not null and types ? 'session_name' then
          names := names || ', session_name';
          vals := vals || format(', $6::%s', types ->> 'session_name');
        end if;
        if item.is_default is not null and types ? 'is_default' then
          names := names || ', is_default';
          vals := vals || format(', $7::%s', types ->> 'is_default');
        end if;
        if now_as ->> 'last_activity' is not null then
          names := names || ', last_activity';
          vals := vals || ', ' || (now_as ->> 'last_activity');
        end if;
        if now_as ->> 'created_at' is not null then
          names := names || ', created_at';
          vals := vals || ', ' || (now_as ->> 'created_at');
        end if;
        execute format('insert into %s (%s) values (%s)', target, names, vals)
          using item.user_id, item.session_id, item.sidecar, item.status, item.active, item.name, item.is_default;
        changed := 1;
      end if;
    exception when others then
      changed := 0;
      why := sqlerrm;
    end;
    answers := answers || jsonb_build_object(item.place, jsonb_strip_nulls(jsonb_build_object(
      'user', item.user_id, 'session', item.session_id, 'noted', changed > 0, 'why', why)));
  end loop;
  return jsonb_build_object('table', true, 'rows', coalesce(
    (select jsonb_agg(a.value order by a.key::bigint) from jsonb_each(answers) a), '[]'));
end $$;

-- What of all this is there, for `init` and `doctor`; changes nothing.
--   {"table", "bucket"}
--   {"version": 2, "leases", "functions", "role", "table": {"exists", "columns", "rls", "unique"} | null,
--    "policies": [{"table", "name", "command", "permissive", "roles", "using", "check"}], "objects_rls",
--    "history_policy", "bucket": {"id", "public", "file_size_limit", "allowed_mime_types"} | null, "server_version"}
create or replace function public.session_sidecar_report(request jsonb default '{}')
returns jsonb language plpgsql stable security invoker set search_path = '' as $$
declare
  bucket_id constant text := coalesce(request ->> 'bucket', 'whatsapp-sessions');
  table_name constant text := coalesce(request ->> 'table', 'whatsapp_sessions');
  objects constant regclass := to_regclass('storage.objects');
  target regclass;
  bucket jsonb;
  role_ready boolean := false;
begin
  select c.oid into target
  from pg_catalog.pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relname = table_name and c.relkind in ('r', 'p');
  if to_regclass('storage.buckets') is not null then
    begin
      execute 'select to_jsonb(b) from storage.buckets b where id = $1' into bucket using bucket_id;
    exception when insufficient_privilege then
      bucket := null;
    end;
  end if;
  if to_regprocedure('public.session_sidecar_buckets()') is not null and to_regrole('authenticator') is not null then
    -- The last file of the SQL makes it.
    execute 'select $1 = any (public.session_sidecar_buckets())' into role_ready using bucket_id;
    role_ready := role_ready and exists (
      select from pg_catalog.pg_policy p join pg_catalog.pg_roles r on p.polroles = array[r.oid]
      where p.polrelid = objects and p.polpermissive and r.rolname = 'session_sidecar'
        and pg_has_role('authenticator', r.oid, 'member'));
  end if;
  return jsonb_build_object(
    'version', 2,
    'role', role_ready,
    'leases', to_regclass('public.session_sidecar_leases') is not null,
    'functions', (
      select coalesce(jsonb_agg(p.proname order by p.proname), '[]') from pg_catalog.pg_proc p
      where p.pronamespace = 'public'::regnamespace and pg_get_function_identity_arguments(p.oid) = 'request jsonb'
        and p.proname in ('acquire_session_leases', 'renew_session_leases', 'release_session_leases',
          'note_session_metadata', 'session_sidecar_report')),
    'table', case when request -> 'table' is distinct from 'null' then jsonb_build_object(
      'exists', target is not null,
      'columns', (
        select coalesce(jsonb_object_agg(a.attname, format_type(a.atttypid, a.atttypmod)), '{}')
        from pg_catalog.pg_attribute a where a.attrelid = target and a.attnum > 0 and not a.attisdropped),
      'rls', coalesce((select c.relrowsecurity from pg_catalog.pg_class c where c.oid = target), false),
      'unique', exists (
        select from pg_catalog.pg_index i
        where i.indrelid = target and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
          and i.indnkeyatts = 2 and (
            select array_agg(a.attname::text order by a.attname) from pg_catalog.pg_attribute a
            where a.attrelid = target and a.attnum = any (i.indkey[0:1])
          ) = array['session_id', 'user_id'])) end,
    'policies', (
      select coalesce(jsonb_agg(jsonb_build_object(
          'table', p.schemaname || '.' || p.tablename, 'name', p.policyname, 'command', p.cmd,
          'permissive', p.permissive = 'PERMISSIVE', 'roles', p.roles, 'using', p.qual, 'check', p.with_check)
        order by p.schemaname, p.tablename, p.policyname), '[]')
      from pg_catalog.pg_policies p
      where (p.schemaname, p.tablename) = ('storage', 'objects')
        or (p.schemaname = 'public' and p.tablename = table_name and request -> 'table' is distinct from 'null')),
    'objects_rls', coalesce((select c.relrowsecurity from pg_catalog.pg_class c where c.oid = objects), false),
    'history_policy', exists (
      select from pg_catalog.pg_policy p
      where p.polrelid = objects and not p.polpermissive and p.polcmd = '*' and p.polroles = array[0::oid]
        and p.polname = left('session-sidecar: history of ' || bucket_id, 63)),
    'bucket', case when bucket is not null then jsonb_build_object(
      'id', bucket -> 'id', 'public', bucket -> 'public', 'file_size_limit', bucket -> 'file_size_limit',
      'allowed_mime_types', bucket -> 'allowed_mime_types') end,
    'server_version', split_part(current_setting('server_version'), ' ', 1));
end $$;

do $$
declare
  ours text;
begin
  for ours in
    select p.oid::regprocedure::text from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace
      and (p.proname in ('acquire_session_leases', 'renew_session_leases', 'release_session_leases',
        'note_session_metadata') or p.proname like 'session\_sidecar\_%')
  loop
    execute format('revoke execute on function %s from public, anon, authenticated', ours);
    execute format('grant execute on function %s to service_role', ours);
  end loop;
end $$;
