-- What a new project has of hosted Supabase, as far as our SQL can tell.
alter schema public owner to postgres;
grant usage on schema public to anon, authenticated, service_role;
-- Whatever `postgres` makes in schema public can be reached over PostgREST by everybody, unless it is revoked.
alter default privileges for role postgres in schema public
  grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  grant all on functions to postgres, anon, authenticated, service_role;

create schema auth;
grant usage on schema auth to anon, authenticated, service_role;
grant usage on schema auth to postgres with grant option;
create function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''), nullif(current_setting('request.jwt.claims', true), ''))::jsonb
$$;
create function auth.uid() returns uuid language sql stable as $$ select (auth.jwt() ->> 'sub')::uuid $$;
create function auth.role() returns text language sql stable as $$ select auth.jwt() ->> 'role' $$;

create schema storage;
grant usage on schema storage to anon, authenticated, service_role, supabase_storage_admin;
grant usage on schema storage to postgres with grant option;
create table storage.buckets (
  id text primary key,
  name text not null unique,
  owner uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  public boolean default false,
  avif_autodetection boolean default false,
  file_size_limit bigint,
  allowed_mime_types text[],
  owner_id text
);
create table storage.objects (
  id uuid primary key default gen_random_uuid(),
  bucket_id text references storage.buckets (id),
  name text,
  owner uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  last_accessed_at timestamptz default now(),
  metadata jsonb,
  path_tokens text[] generated always as (string_to_array(name, '/')) stored,
  version text,
  owner_id text,
  user_metadata jsonb,
  unique (bucket_id, name)
);
alter table storage.buckets owner to supabase_storage_admin;
alter table storage.objects owner to supabase_storage_admin;
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;
grant all on storage.buckets, storage.objects to postgres, anon, authenticated, service_role;
create function storage.foldername(name text) returns text[] language sql immutable as $$
  select (string_to_array(name, '/'))[1 : array_length(string_to_array(name, '/'), 1) - 1]
$$;

create function public.only_policies() returns event_trigger language plpgsql as $$
declare
  command record;
begin
  if session_user = 'supabase_admin' then
    return;
  end if;
  for command in select * from pg_event_trigger_ddl_commands() loop
    if command.schema_name = 'storage' and command.command_tag not in ('CREATE POLICY', 'ALTER POLICY') then
      raise insufficient_privilege using message = 'must be owner: ' || command.command_tag;
    end if;
  end loop;
end $$;
create event trigger only_policies on ddl_command_end execute function public.only_policies();
