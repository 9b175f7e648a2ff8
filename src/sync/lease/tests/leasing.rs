//! Waiting for grants and renewing them, on a row table in memory and the paused clock.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{Instant, sleep, timeout};

use super::*;

const TTL: Duration = Duration::from_secs(30);

#[derive(Debug, Default, Clone)]
struct Row {
    epoch: u32,
    holder: Option<String>,
    until: Option<Instant>,
    wish: Option<String>,
}

/// What the SQL does, as far as a process can see it.
#[derive(Debug, Default)]
struct Rows {
    table: Mutex<BTreeMap<SessionKey, Row>>,
    away: AtomicBool,
    /// Keys a renewal call.
    renewals: Mutex<Vec<usize>>,
}

impl Rows {
    fn answer(&self) -> Result<(), Error> {
        let away = self.away.load(Ordering::Relaxed);
        if away { Err(Error::new(Code::Unreachable, "away")) } else { Ok(()) }
    }

    fn row(&self, key: &SessionKey) -> Row {
        self.table.lock().unwrap().get(key).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Lessor for Rows {
    async fn acquire(&self, asks: &[Ask], how: How) -> Result<Vec<Outcome>, Error> {
        self.answer()?;
        let (now, mut rows) = (Instant::now(), self.table.lock().unwrap());
        let outcome = |ask: &Ask| {
            let row = rows.entry(ask.key.clone()).or_default();
            let other = row.holder.as_ref().is_some_and(|holder| *holder != ask.holder);
            if other && row.until.is_some_and(|until| until > now) {
                if how.ask {
                    row.wish = Some(ask.holder.clone());
                }
                let expires_in = row.until.map(|until| until - now);
                return Outcome::Refused(Refused { holder: row.holder.clone(), expires_in });
            }
            let epoch = row.epoch.max(ask.above) + 1;
            *row = Row { epoch, holder: Some(ask.holder.clone()), until: Some(now + how.ttl), wish: None };
            Outcome::Granted { epoch, head: None }
        };
        Ok(asks.iter().map(outcome).collect())
    }

    async fn renew(&self, held: &[Grant], ttl: Duration) -> Result<BTreeMap<SessionKey, Renewed>, Error> {
        self.renewals.lock().unwrap().push(held.len());
        self.answer()?;
        let mut rows = self.table.lock().unwrap();
        let renewed = held.iter().map(|grant| {
            let row = rows.entry(grant.key.clone()).or_default();
            if row.epoch > grant.epoch {
                return (grant.key.clone(), Renewed::Taken { epoch: row.epoch });
            }
            row.until = Some(Instant::now() + ttl);
            (grant.key.clone(), if row.wish.is_some() { Renewed::Wanted } else { Renewed::Held })
        });
        Ok(renewed.collect())
    }

    async fn release(&self, held: &[Grant]) -> Result<(), Error> {
        self.answer()?;
        for grant in held {
            let mut rows = self.table.lock().unwrap();
            let row = rows.entry(grant.key.clone()).or_default();
            (row.holder, row.until) = (None, None);
        }
        Ok(())
    }
}

fn ask_as(holder: &str) -> Ask {
    Ask { key: key(), holder: holder.to_owned(), above: 0 }
}

const QUIET: Wait = Wait { ask: false, until: None, contend: true };

fn process(rows: &Arc<Rows>) -> Arc<Leases> {
    Leases::new(Arc::clone(rows) as _, TTL, false)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sessions_are_renewed_by_two_calls_every_ten_seconds() {
    let rows = Arc::new(Rows::default());
    let leases = process(&rows);
    let asks = (0..1000).map(|n| {
        let key = SessionKey::new("u", format!("s{n}")).unwrap();
        leases.acquire(Ask { key, holder: "a".to_owned(), above: 0 }, QUIET)
    });
    assert!(join_all(asks).await.iter().all(Result::is_ok));
    assert_eq!(leases.held().len(), 1000);
    sleep(Duration::from_mins(1) + Duration::from_secs(1)).await;
    assert_eq!(*rows.renewals.lock().unwrap(), [500; 12]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_the_session_soon_after_its_holder_died() {
    let rows = Arc::new(Rows::default());
    // One that never renews.
    rows.acquire(&[ask_as("dead")], How { ttl: TTL, ask: true, all_or_none: false }).await.unwrap();
    let granted = timeout(TTL + Duration::from_secs(2), process(&rows).acquire(ask_as("a"), QUIET)).await;
    assert_eq!(granted.unwrap().unwrap(), Granted { epoch: 2, head: None });
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_holders_name() {
    let rows = Arc::new(Rows::default());
    let holder = process(&rows);
    holder.acquire(ask_as("a"), QUIET).await.unwrap();
    let wait = Wait { ask: true, until: Some(Instant::now() + Duration::from_mins(4)), contend: true };
    let error = process(&rows).acquire(ask_as("b"), wait).await.unwrap_err();
    assert_eq!(error.code(), Code::LeaseHeld);
    assert!(error.to_string().contains("holder a"), "{error}");
    assert!(holder.any(|standing| standing == Standing::Wanted), "it asked");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_waiter_asks_for_nothing() {
    let rows = Arc::new(Rows::default());
    process(&rows).acquire(ask_as("a"), QUIET).await.unwrap();
    let wait = Wait { ask: false, until: Some(Instant::now() + Duration::from_secs(5)), contend: true };
    process(&rows).acquire(ask_as("b"), wait).await.unwrap_err();
    assert_eq!(rows.row(&key()).wish, None);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_runs_out_and_is_held_again_when_nobody_took_it() {
    let rows = Arc::new(Rows::default());
    let leases = process(&rows);
    leases.acquire(ask_as("a"), QUIET).await.unwrap();
    let mut standing = leases.watch(&key()).unwrap();
    rows.away.store(true, Ordering::Relaxed);
    standing.wait_for(|standing| *standing == Standing::RanOut).await.unwrap();
    rows.away.store(false, Ordering::Relaxed);
    standing.wait_for(|standing| *standing == Standing::Held).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_was_overtaken_is_told_with_the_next_renewal() {
    let rows = Arc::new(Rows::default());
    let leases = process(&rows);
    leases.acquire(ask_as("a"), QUIET).await.unwrap();
    let mut standing = leases.watch(&key()).unwrap();
    rows.table.lock().unwrap().insert(key(), Row { epoch: 9, ..Row::default() });
    standing.wait_for(|standing| *standing == Standing::Taken { epoch: 9 }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_waits_for_any_more_is_given_back() {
    let rows = Arc::new(Rows::default());
    let (first, second) = (process(&rows), process(&rows));
    first.acquire(ask_as("a"), QUIET).await.unwrap();
    timeout(Duration::from_secs(1), second.acquire(ask_as("b"), QUIET)).await.unwrap_err();
    first.release(&[key()]).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!((rows.row(&key()).holder, second.held()), (None, Vec::new()));
    assert_eq!(first.held().into_iter().collect::<BTreeSet<_>>(), BTreeSet::new());
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_is_told_at_once() {
    let rows = Arc::new(Rows::default());
    rows.away.store(true, Ordering::Relaxed);
    let error = process(&rows).acquire(ask_as("a"), QUIET).await.unwrap_err();
    assert_eq!(error.code(), Code::Unreachable);
}
