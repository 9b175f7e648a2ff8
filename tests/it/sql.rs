//! The SQL of `supabase/migrations` on a real PostgreSQL that is set up as hosted Supabase is.

mod applying;
mod contention;
#[cfg(feature = "dev")]
mod init;
mod older_tables;
mod role;
mod security;

/// Two users, whose ids are what Supabase's are.
const ALICE: &str = "11111111-1111-4111-8111-111111111111";
const BOB: &str = "22222222-2222-4222-8222-222222222222";

/// The policies that the seed's service made: everybody reaches the folder that bears their id.
const SEEDS_POLICIES: &str = "
    create policy seed_insert on storage.objects for insert
      with check (bucket_id = 'whatsapp-sessions' and auth.uid()::text = (storage.foldername(name))[1]);
    create policy seed_select on storage.objects for select
      using (bucket_id = 'whatsapp-sessions' and auth.uid()::text = (storage.foldername(name))[1]);
    create policy seed_update on storage.objects for update
      using (bucket_id = 'whatsapp-sessions' and auth.uid()::text = (storage.foldername(name))[1]);
    create policy seed_delete on storage.objects for delete
      using (bucket_id = 'whatsapp-sessions' and auth.uid()::text = (storage.foldername(name))[1]);";
