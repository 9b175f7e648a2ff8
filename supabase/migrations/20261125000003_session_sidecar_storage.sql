-- session-sidecar, 3 of 4: the bucket and who reaches its history.
--
-- Alters no table of schema storage, makes no trigger there: hosted Supabase allows rows and policies only.

-- The bucket: private, objects of up to 50 MiB, the types of commits and mirrored files. One that is there is widened,
-- never narrowed: a limit or list that is null allows everything.
do $$
declare
  wanted constant text := 'whatsapp-sessions';
  size constant bigint := 52428800;
  types constant text[] := array['application/json', 'text/plain', 'application/zstd', 'application/octet-stream'];
  was_public boolean;
begin
  if to_regclass('storage.buckets') is null then
    raise notice 'there is no storage here: no bucket was made';
    return;
  end if;
  insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
    values (wanted, wanted, false, size, types)
    on conflict do nothing;
  select b.public into was_public from storage.buckets b where b.id = wanted;
  if was_public then
    raise notice 'bucket % was public: everybody could read the keys of the accounts. It is private now', wanted;
  end if;
  update storage.buckets b
  set public = false,
    file_size_limit = greatest(b.file_size_limit, case when b.file_size_limit is not null then size end),
    allowed_mime_types = case when b.allowed_mime_types is not null then b.allowed_mime_types || array(
      select t.name from unnest(types) with ordinality t (name, place)
      where not array[t.name, split_part(t.name, '/', 1) || '/*', '*/*'] && b.allowed_mime_types
      order by t.place) end
  where b.id = wanted and (b.public or b.file_size_limit < size or exists (
    select from unnest(types) t (name)
    where not array[t.name, split_part(t.name, '/', 1) || '/*', '*/*'] && b.allowed_mime_types));
exception when insufficient_privilege then
  raise warning 'bucket % was neither made nor changed (`session-sidecar init` can): %', wanted, sqlerrm;
end $$;

-- Whoever writes below .history/ forges an account, whoever reads there owns it. Row-level security adds up what
-- permissive policies allow, and a single careless one, of whatever role, would open the history: this one takes it
-- away again. Only service_role, which is above row-level security anyway, session_sidecar, whose own policies say how
-- far it gets, and the owner of the table pass.
-- Names that differ in case only are other objects, but old lists ignore case: they are closed too.
do $$
declare
  wanted constant text := 'whatsapp-sessions';
  name constant text := left('session-sidecar: history of ' || wanted, 63);
  rule constant text := format(
    '(bucket_id is distinct from %L or current_user in (''service_role'', ''session_sidecar'') '
      'or coalesce(lower(split_part(name, ''/'', 1)), '''') <> ''.history'')', wanted);
begin
  if to_regclass('storage.objects') is null then
    raise notice 'there is no storage here: no policy was made';
    return;
  end if;
  if not (select c.relrowsecurity from pg_catalog.pg_class c where c.oid = 'storage.objects'::regclass) then
    raise warning 'row-level security of storage.objects is off: no policy protects any object';
  end if;
  if exists (
    select from pg_catalog.pg_policy p where p.polrelid = 'storage.objects'::regclass and p.polname = name
  ) then
    -- Made anew, whatever became of it; nobody sees the moment between.
    execute format('drop policy %I on storage.objects', name);
  end if;
  execute format('create policy %I on storage.objects as restrictive for all to public using %s with check %s',
    name, rule, rule);
exception when insufficient_privilege then
  raise warning 'this role may make no policies on storage.objects, so none protects .history/: a permissive policy that '
    'reaches it would open it. Apply this as `postgres` in the dashboard''s SQL editor (%)', sqlerrm;
end $$;
