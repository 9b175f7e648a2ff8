//! A Supabase on loopback that keeps its objects as plain files: for `dev` and the tests.
//!
//! It speaks what this project and its neighbours use of Supabase Storage, at `/storage/v1` as a hosted project
//! does (and at `/` as the bare server, if asked): buckets, uploads (raw and forms), downloads with ranges and
//! conditions, info, both lists, move, copy, delete; service key, anon key and users' tokens, with the seed's
//! policies. Statuses and bodies are those of the recorded cases (`tests/fixtures/supabase-storage.jsonl`).
//! Beside it, at `/rest/v1`, the lease functions and the table of sessions, as `PostgREST` has them.
//! Left out, and answered as unknown routes: resumable uploads, the S3 endpoint, signed URLs, image rendering,
//! object versions.
//!
//! Like the real server it makes no promise that the project could lean on by mistake: an upload without
//! `x-upsert` is check-then-act, and [`Faults`] adds what networks, caches and databases do on a bad day.

mod auth;
mod buckets;
mod conn;
mod disk;
mod error;
mod faults;
mod index;
mod list;
mod objects;
mod rest;
mod route;
mod rules;
mod server;
mod upload;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::auth::Policy;
pub use self::faults::{Down, Faults, FaultsError, Throttle};
pub use self::index::Upload;
pub use self::rest::{Lease, LeaseTable, PgError, Tables};

use self::auth::Keys;
use self::conn::{Line, Lines, Meter};
use self::disk::Disk;
use self::faults::Dice;
use self::index::Index;
use self::rest::Rest;
use self::server::Shared;
use crate::host::{Host, Real};

/// The bucket that the first start makes.
pub const BUCKET: &str = "whatsapp-sessions";

/// How an emulator is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept. Made if missing; one emulator at a time.
    pub dir: PathBuf,
    /// Where to listen; port 0: any free one.
    pub listen: SocketAddr,
    /// What goes wrong from the start.
    pub faults: Faults,
    /// Also serves at `/`, as the storage server without a gateway.
    pub bare: bool,
    /// Of the faults' generator: the same seed and requests give the same faults.
    pub seed: u64,
    /// A bucket that the first start makes.
    pub bucket: Option<BucketOptions>,
    /// The clock of rows and of `Date`.
    pub host: Arc<dyn Host>,
}

impl Default for Options {
    /// The seed's bucket in `./supabase`, any port of 127.0.0.1, no faults.
    fn default() -> Self {
        Self {
            dir: "supabase".into(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            faults: Faults::default(),
            bare: false,
            seed: 0,
            bucket: Some(BucketOptions::default()),
            host: Arc::new(Real),
        }
    }
}

/// A bucket and the policies of its objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketOptions {
    /// Its id and name.
    pub id: String,
    /// Whether everybody may read it.
    pub public: bool,
    /// The largest object in bytes.
    pub file_size_limit: Option<u64>,
    /// The content types it accepts; none: all.
    pub allowed_mime_types: Option<Vec<String>>,
    /// Row-level security of its objects.
    pub policies: Vec<Policy>,
}

impl Default for BucketOptions {
    /// As the seed's service makes it, open to our tokens as our SQL makes it.
    fn default() -> Self {
        Self {
            id: BUCKET.into(),
            public: false,
            file_size_limit: Some(10 * 1024 * 1024),
            allowed_mime_types: Some(vec!["application/json".into(), "text/plain".into()]),
            policies: vec![Policy::OwnFolder, Policy::Sidecar],
        }
    }
}

/// A running emulator. Dropping it stops it without waiting.
pub struct Emulator {
    addr: SocketAddr,
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    server: JoinHandle<()>,
    /// Held for as long as the directory is ours.
    _lock: File,
}

/// Starts an emulator on a directory.
///
/// # Errors
/// The directory cannot be used or is used by another emulator; the address is taken.
pub async fn start(options: Options) -> io::Result<Emulator> {
    let disk = Disk::new(&options.dir);
    let lock = disk.lock()?;
    disk.prepare()?;
    let keys = Keys::load_or_make(&disk.keys())?;
    let mut index = Index::open(disk.clone(), Arc::clone(&options.host))?;
    if let Some(bucket) = options.bucket.filter(|bucket| !index.buckets.contains_key(&bucket.id)) {
        put_bucket(&mut index, bucket)?;
    }
    let listener = TcpListener::bind(options.listen).await?;
    let addr = listener.local_addr()?;
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared {
        index: Mutex::new(index),
        rest: Mutex::new(Rest::open(disk.tables())?),
        disk,
        keys,
        dice: Dice::new(options.seed, options.faults),
        host: options.host,
        bare: options.bare,
        counts: Mutex::default(),
        stop: stop.clone(),
    });
    let app = Router::new().fallback(server::answer).with_state(Arc::clone(&shared));
    let app = app.into_make_service_with_connect_info::<Line>();
    let meter = Arc::new(Meter::default());
    let lines = Lines(listener, Arc::clone(&meter));
    let server = axum::serve(lines, app).with_graceful_shutdown(stop.cancelled_owned());
    let server = tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the emulator ended");
        }
    });
    Ok(Emulator { addr, shared, meter, server, _lock: lock })
}

fn put_bucket(index: &mut Index, bucket: BucketOptions) -> io::Result<()> {
    index.put_bucket(bucket).map_err(|_| io::Error::other("the journal cannot be written"))
}

impl Emulator {
    /// The project's URL, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The key that bypasses row-level security.
    #[must_use]
    pub fn service_role_key(&self) -> &str {
        &self.shared.keys.service_role
    }

    /// The key that everybody may have.
    #[must_use]
    pub fn anon_key(&self) -> &str {
        &self.shared.keys.anon
    }

    /// A service key of the new kind (`sb_secret_…`), for the `apikey` header.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.shared.keys.secret
    }

    /// What tokens are signed with (HS256).
    #[must_use]
    pub fn jwt_secret(&self) -> &str {
        &self.shared.keys.jwt_secret
    }

    /// The token of a signed-in user.
    #[must_use]
    pub fn user_jwt(&self, sub: &str) -> String {
        self.shared.keys.user(sub)
    }

    /// A token with these claims (a JSON object), for roles and times of expiry that have no function here.
    #[must_use]
    pub fn jwt(&self, claims: &Value) -> String {
        self.shared.keys.sign(claims)
    }

    /// Requests so far, by method and route (`POST /object/list-v2/{bucket}`; `rpc acquire_session_leases`,
    /// `table GET`), those that failed by a fault too.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes received and sent so far, with the heads of requests and answers.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        (self.meter.received.load(Ordering::Relaxed), self.meter.sent.load(Ordering::Relaxed))
    }

    /// Every content that was ever accepted under a name, in order, also of earlier lives in the directory.
    #[must_use]
    pub fn uploads(&self) -> Vec<Upload> {
        self.shared.index().uploads.clone()
    }

    /// The file with an object's bytes; none: there is no such object.
    #[must_use]
    pub fn object_path(&self, bucket: &str, key: &str) -> Option<PathBuf> {
        let index = self.shared.index();
        index.buckets.get(bucket)?.objects.get(key)?;
        Some(index.disk.find(bucket, key))
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.dice.set(faults);
    }

    /// Creates a bucket, or changes one and its policies.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn put_bucket(&self, bucket: BucketOptions) -> io::Result<()> {
        put_bucket(&mut self.shared.index(), bucket)
    }

    /// The rows of all tables, as they are now.
    #[must_use]
    pub fn tables(&self) -> Tables {
        self.shared.rest().tables().clone()
    }

    /// Replaces the rows of all tables, as a database does that is restored from a backup.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn put_tables(&self, tables: Tables) -> io::Result<()> {
        self.shared.rest().put(tables)
    }

    /// Moves a lease's grant, expiry and wish into the past.
    ///
    /// # Errors
    /// There is no such lease; the directory cannot be written.
    pub fn age_lease(&self, bucket: &str, user: &str, session: &str, by: Duration) -> io::Result<()> {
        self.shared.rest().change(|tables| {
            let lease = tables.leases.get_mut(bucket, user, session);
            lease.ok_or(io::ErrorKind::NotFound)?.age(by);
            Ok(())
        })
    }

    /// Whether somebody ran our SQL (they did, unless told otherwise): without it functions and tables are unknown.
    pub fn set_schema(&self, schema: bool) {
        self.shared.rest().schema = schema;
    }

    /// Ends: requests under way are answered, for a second at most; uploads that would have landed later do not.
    pub async fn stop(mut self) {
        self.shared.stop.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut self.server).await;
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.index().closed = true;
        self.shared.rest().closed = true;
    }
}

/// The command: starts, writes four lines `KEY=value` to `out`, serves until `shutdown` is ready.
///
/// # Errors
/// As [`start`]; `out` is closed.
pub async fn run(
    options: Options,
    out: &mut (impl Write + Send),
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let emulator = start(options).await?;
    writeln!(out, "SUPABASE_URL={}", emulator.url())?;
    writeln!(out, "SUPABASE_SERVICE_ROLE_KEY={}", emulator.service_role_key())?;
    writeln!(out, "SUPABASE_ANON_KEY={}", emulator.anon_key())?;
    writeln!(out, "SUPABASE_JWT_SECRET={}", emulator.jwt_secret())?;
    out.flush()?;
    shutdown.await;
    emulator.stop().await;
    Ok(())
}
