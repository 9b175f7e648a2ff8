//! The contract on the emulator, over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Leases, cases};
use crate::support::world::World;

struct Emulated {
    world: World,
    http: reqwest::Client,
}

async fn open() -> Emulated {
    // The first client of a process decides who does its cryptography; another test's may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Emulated { world: World::new().await, http: reqwest::Client::new() }
}

impl Leases for Emulated {
    async fn call(&self, function: &str, request: Value) -> Result<Value, String> {
        let supabase = &self.world.supabase;
        let call = self.http.post(format!("{}/rest/v1/rpc/{function}", supabase.url()));
        let call =
            call.header("apikey", supabase.service_role_key()).bearer_auth(supabase.service_role_key());
        let response = call.json(&json!({ "request": request })).send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        match status {
            200 => Ok(body),
            _ => Err(format!("{}: {}", body["code"].as_str().unwrap(), body["message"])),
        }
    }

    async fn age(&self, bucket: &str, user: &str, session: &str, seconds: u32) {
        self.world.supabase.age_lease(bucket, user, session, Duration::from_secs(seconds.into())).unwrap();
    }

    async fn row(&self, user: &str, session: &str) -> Option<Value> {
        let rows = self.world.supabase.tables().sessions;
        let row = rows.into_iter().find(|row| row["user_id"] == user && row["session_id"] == session);
        row.map(Value::Object)
    }
}

cases!(open);
