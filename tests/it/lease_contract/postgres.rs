//! The contract on the SQL.

use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use super::{Leases, cases};
use crate::support::postgres::{Project, call, rows};

struct Postgres {
    service: Client,
    owner: Client,
}

async fn open() -> Postgres {
    static PROJECT: OnceCell<Project> = OnceCell::const_new();
    let project = PROJECT.get_or_init(Project::ready).await;
    Postgres {
        service: project.request("service_role", None).await,
        owner: project.connect("postgres").await,
    }
}

impl Leases for Postgres {
    async fn call(&self, function: &str, request: Value) -> Result<Value, String> {
        call(&self.service, function, &request).await
    }

    async fn age(&self, bucket: &str, user: &str, session: &str, seconds: u32) {
        let sql = "update session_sidecar_leases set granted_at = granted_at - $4 * interval '1 s', \
                   expires_at = expires_at - $4 * interval '1 s', wish_at = wish_at - $4 * interval '1 s' \
                   where bucket = $1 and user_id = $2 and session_id = $3";
        let aged = self.owner.execute(sql, &[&bucket, &user, &session, &f64::from(seconds)]).await.unwrap();
        assert_eq!(aged, 1);
    }

    async fn row(&self, user: &str, session: &str) -> Option<Value> {
        let query =
            format!("select * from whatsapp_sessions where user_id = '{user}' and session_id = '{session}'");
        rows(&self.service, &query).await.unwrap().pop()
    }
}

cases!(open);
