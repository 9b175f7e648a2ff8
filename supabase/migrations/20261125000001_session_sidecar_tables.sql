-- session-sidecar, 1 of 4: tables.
--
-- Can be applied again and again, by `postgres` in the dashboard's SQL editor, through psql, or by
-- `session-sidecar init --database-url`. A table that is there already loses nothing: its policies, grants,
-- constraints and columns stay as they are.

-- Sessions, for people and apps. What session-sidecar knows stands under session_data.sidecar; that a session exists
-- is decided by its history in the bucket, never by a row.
do $$
declare
  target constant regclass := to_regclass('public.whatsapp_sessions');
  kind "char";
  missing record;
begin
  if target is null then
    create table public.whatsapp_sessions (
      user_id text not null,
      session_id text not null,
      session_data jsonb,
      is_active boolean not null default true,
      created_at timestamptz not null default now(),
      last_activity timestamptz not null default now(),
      primary key (user_id, session_id)
    );
    alter table public.whatsapp_sessions enable row level security;
    -- A project's default privileges may have given more, TRUNCATE among it, which no policy stops.
    revoke all on public.whatsapp_sessions from public, anon, authenticated;
    grant select on public.whatsapp_sessions to authenticated;
    grant select, insert, update, delete on public.whatsapp_sessions to service_role;
  else
    select c.relkind into kind from pg_catalog.pg_class c where c.oid = target;
    if kind not in ('r', 'p') then
      raise notice 'public.whatsapp_sessions is no table: it stays as it is, and no metadata is written to it';
      return;
    end if;
    for missing in
      select c.name, c.definition
      from (values ('session_data', 'jsonb'), ('is_active', 'boolean not null default true'),
        ('last_activity', 'timestamptz')) c (name, definition)
      where not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = target and a.attname = c.name and not a.attisdropped)
    loop
      execute format('alter table public.whatsapp_sessions add column %I %s', missing.name, missing.definition);
    end loop;
    grant select, insert, update on public.whatsapp_sessions to service_role;
  end if;
exception when insufficient_privilege then
  raise warning 'public.whatsapp_sessions belongs to another role and stays as it is: %', sqlerrm;
end $$;

-- A user reads their own rows. The claim is compared as text: user_id may be uuid or text, and the ids of an
-- external identity provider are no uuids, on which auth.uid() fails.
do $$
declare
  target constant regclass := to_regclass('public.whatsapp_sessions');
  secured boolean;
begin
  select c.relrowsecurity into secured from pg_catalog.pg_class c where c.oid = target and c.relkind in ('r', 'p');
  if secured is null then
    return;
  elsif not secured then
    -- Enabling it would lock out an app that reads the table with the anon key. Whoever owns that app decides.
    raise notice 'row-level security of public.whatsapp_sessions is off and stays off: everybody with the anon key can '
      'reach its rows. Once no app depends on that: alter table public.whatsapp_sessions enable row level security; '
      'then apply this again';
  elsif exists (
    select from pg_catalog.pg_policy p
    where p.polrelid = target and p.polpermissive and p.polcmd in ('r', '*')
      and p.polroles is distinct from array[to_regrole('session_sidecar')::oid]
  ) then
    -- Who reads the table was decided already, by us or by its owner.
    return;
  elsif not exists (
    select from pg_catalog.pg_attribute a
    where a.attrelid = target and a.attname = 'user_id' and not a.attisdropped
  ) then
    raise notice 'public.whatsapp_sessions has no column user_id: no policy is added, and no metadata written';
  elsif to_regprocedure('auth.jwt()') is null then
    raise notice 'there is no auth.jwt() here: no policy for users is added to public.whatsapp_sessions';
  else
    create policy "session-sidecar: users read their own rows" on public.whatsapp_sessions
      for select to authenticated using (user_id::text = (select auth.jwt() ->> 'sub'));
  end if;
exception when insufficient_privilege then
  raise warning 'no policy was added to public.whatsapp_sessions: %', sqlerrm;
end $$;

-- Who may commit a session, by this database's clock. Safety does not rest on it: every grant is also claimed in the
-- bucket, so that a row that was restored from a backup cannot lose a write. Rows are never deleted.
create table if not exists public.session_sidecar_leases (
  -- Names compare by their bytes, so that all calls lock rows in the same order and heads sort by time.
  bucket text collate "C" not null,
  user_id text collate "C" not null,
  session_id text collate "C" not null,
  -- Of the newest grant; goes only up.
  epoch bigint not null default 0 check (epoch between 0 and 99999999),
  holder text,
  granted_at timestamptz,
  expires_at timestamptz,
  -- The newest commit that a holder acknowledged.
  head text collate "C",
  -- Who asked for the session last.
  wish_by text,
  wish_at timestamptz,
  updated_at timestamptz not null default now(),
  primary key (bucket, user_id, session_id),
  check ((holder is null) = (expires_at is null))
);
comment on table public.session_sidecar_leases is 'session-sidecar: which process may commit a session';

-- For the functions alone: no policy lets anybody in.
alter table public.session_sidecar_leases enable row level security;
revoke all on public.session_sidecar_leases from public, anon, authenticated;
grant select, insert, update on public.session_sidecar_leases to service_role;
