-- The roles of hosted Supabase, made by its superuser `supabase_admin`.
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
create role supabase_storage_admin nologin noinherit;
-- What people and migrations connect as: no superuser, and above row-level security.
create role postgres login nosuperuser createdb createrole replication bypassrls;
grant anon, authenticated, service_role to postgres;
-- Hosted, the extension supautils lets `postgres` make policies on storage.objects, which it does not own. Here it is
-- a member of the owner instead, and an event trigger of the database refuses whatever else that would allow.
grant supabase_storage_admin to postgres;
