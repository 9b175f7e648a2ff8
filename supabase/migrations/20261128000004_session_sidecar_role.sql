-- session-sidecar, 4 of 4: a role that may do what session-sidecar does, and nothing else.
--
-- `session-sidecar token` makes tokens for it, with which a sidecar needs no secret key. It reaches the buckets that this
-- was applied for, the rows of their leases, and the table of sessions; a token that names a user or a session
-- (session_sidecar_prefix) reaches no more of them than that.

do $$
begin
  if to_regrole('session_sidecar') is null then
    begin
      create role session_sidecar nologin noinherit;
    exception when duplicate_object or unique_violation then
      -- Roles belong to the whole server: another database of it was faster.
      null;
    end;
  end if;
  if exists (
    select from pg_catalog.pg_roles r where r.rolname = 'session_sidecar' and (r.rolsuper or r.rolbypassrls)
  ) then
    raise warning 'the role session_sidecar is above row-level security: its tokens open everything. Take that away from '
      'it: alter role session_sidecar nosuperuser nobypassrls';
  end if;
  if to_regrole('authenticator') is null then
    raise notice 'there is no role authenticator: grant session_sidecar to the role that PostgREST and Storage connect as';
  elsif not pg_has_role('authenticator', 'session_sidecar', 'member') then
    begin
      grant session_sidecar to authenticator;
    exception when unique_violation then
      null;
    end;
  end if;
exception when insufficient_privilege then
  raise warning 'the role session_sidecar was not made or not granted, so that no token can be for it: %', sqlerrm;
end $$;

-- The buckets that this was applied for: one project may have several.
do $$
declare
  wanted constant text := 'whatsapp-sessions';
  buckets text[] := '{}';
begin
  if to_regprocedure('public.session_sidecar_buckets()') is not null then
    execute 'select public.session_sidecar_buckets()' into buckets;
  end if;
  buckets := array(select b.id from unnest(buckets || wanted) b (id) group by b.id order by b.id collate "C");
  execute format(
    'create or replace function public.session_sidecar_buckets() returns text[] language sql stable set search_path = '''' as %L',
    format('select %L::text[]', buckets));
end $$;
revoke execute on function public.session_sidecar_buckets() from public, anon, authenticated;
grant execute on function public.session_sidecar_buckets() to service_role;

-- Policies first, grants last: whatever fails between leaves the role with less. Each rule stands there twice: one policy
-- opens, and a restrictive one keeps out what the policies of others would open to everybody.
do $$
declare
  metadata constant text := 'whatsapp_sessions';
  name constant text := 'session-sidecar: the role session_sidecar';
  sessions constant regclass := case when metadata <> '' then to_regclass(format('public.%I', metadata)) end;
  our_bucket constant text := '%s = any ((select public.session_sidecar_buckets())::text[])';
  our_key constant text := '(starts_with(name, (select public.session_sidecar_prefix())) '
    'or starts_with(name, ''.history/'' || (select public.session_sidecar_prefix())))';
  -- Storage takes any name; on a disk below it these would lead out of the folder.
  plain_key constant text := 'name !~ ''(^|/)[.]{1,2}(/|$)''';
  secured boolean;
  target regclass;
  item record;
  kind text;
begin
  if to_regrole('session_sidecar') is null then
    return;
  end if;
  grant usage on schema public to session_sidecar;
  if to_regnamespace('auth') is not null and has_schema_privilege('auth', 'usage with grant option') then
    -- Policies for everybody are asked for this role too, and what they call may name others of this schema.
    grant usage on schema auth to session_sidecar;
  end if;
  for item in
    select p.oid::regprocedure::text as signature from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace
      and (p.proname in ('acquire_session_leases', 'renew_session_leases', 'release_session_leases',
        'note_session_metadata') or p.proname like 'session\_sidecar\_%')
  loop
    execute format('grant execute on function %s to session_sidecar', item.signature);
  end loop;

  -- Without row-level security a policy is idle, and a grant would open all rows to a token for one session. That it is
  -- off was remarked where the table was looked at.
  select c.relrowsecurity into secured from pg_catalog.pg_class c
  where c.oid = sessions and c.relkind in ('r', 'p') and 2 = (
    select count(*) from pg_catalog.pg_attribute a
    where a.attrelid = sessions and a.attname in ('user_id', 'session_id') and not a.attisdropped);
  for item in
    select * from (values
      ('public.session_sidecar_leases', 'all', 'select, insert, update',
        format(our_bucket, 'bucket') || ' and public.session_sidecar_reaches(user_id, session_id)', null),
      (case when secured then format('public.%I', metadata) end, 'all', 'select, insert, update',
        'public.session_sidecar_reaches(user_id::text, session_id::text)', null),
      ('storage.buckets', 'select', 'select', format(our_bucket, 'id'), null),
      ('storage.objects', 'all', 'select, insert, update, delete',
        format(our_bucket, 'bucket_id') || ' and ' || our_key, plain_key)
    ) r (relation, command, grants, rule, only_written)
  loop
    target := to_regclass(item.relation);
    continue when target is null;
    begin
      foreach kind in array array['permissive', 'restrictive'] loop
        if exists (
          select from pg_catalog.pg_policy p where p.polrelid = target and p.polname = format('%s (%s)', name, kind)
        ) then
          execute format('drop policy %I on %s', format('%s (%s)', name, kind), target);
        end if;
        execute format('create policy %I on %s as %s for %s to session_sidecar using (%s)',
          format('%s (%s)', name, kind), target, kind, item.command, item.rule)
          || case when item.command = 'all'
            then format(' with check (%s)', concat_ws(' and ', item.rule, item.only_written)) else '' end;
      end loop;
      if item.relation like 'storage.%' then
        grant usage on schema storage to session_sidecar;
      end if;
      execute format('grant %s on %s to session_sidecar', item.grants, target);
    exception when insufficient_privilege then
      raise warning 'the role session_sidecar does not reach %: apply this as `postgres` in the dashboard''s SQL editor (%)',
        target, sqlerrm;
    end;
  end loop;
  if sessions is not null and secured is not true then
    begin
      execute format('revoke all on %s from session_sidecar', sessions);
    exception when insufficient_privilege then
      raise warning 'what the role session_sidecar may do with % could not be taken from it: %', sessions, sqlerrm;
    end;
  elsif secured then
    -- A column that counts by itself.
    for item in
      select d.objid::regclass as sequence from pg_catalog.pg_depend d join pg_catalog.pg_class c on c.oid = d.objid
      where d.refobjid = sessions and d.refclassid = 'pg_catalog.pg_class'::regclass and d.deptype = 'a' and c.relkind = 'S'
    loop
      execute format('grant usage on sequence %s to session_sidecar', item.sequence);
    end loop;
  end if;
end $$;

-- A policy for everybody is asked for this role too, and what it reads itself must be open to the role: else all that the
-- role does with objects is refused.
do $$
declare
  item record;
begin
  for item in
    select p.polname, d.what
    from pg_catalog.pg_policy p
    cross join lateral (
      select d.refobjid::regclass::text as what
      from pg_catalog.pg_depend d
      where d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
        and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> p.polrelid
        and not has_any_column_privilege('session_sidecar', d.refobjid, 'select')
      union
      select d.refobjid::regprocedure::text
      from pg_catalog.pg_depend d
      where d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
        and d.refclassid = 'pg_catalog.pg_proc'::regclass
        and not has_function_privilege('session_sidecar', d.refobjid, 'execute')
    ) d
    where p.polrelid = to_regclass('storage.objects') and p.polroles = array[0::oid]
      and to_regrole('session_sidecar') is not null
    order by 1, 2
  loop
    raise notice 'policy "%" of storage.objects is for everybody (public) and uses %, which the role session_sidecar may '
      'not: its tokens do not work until that policy is for other roles (alter policy … to authenticated)',
      item.polname, item.what;
  end loop;
end $$;

-- PostgREST learns of new functions only when it is told.
notify pgrst, 'reload schema';
