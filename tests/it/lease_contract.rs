//! What the functions over `PostgREST` promise, case by case, of every database that has them: the SQL on a real
//! PostgreSQL, and the emulator.

#[cfg(feature = "dev")]
mod emulator;
mod grants;
mod metadata;
mod postgres;
mod renewals;
mod requests;

use std::fmt::Debug;

use serde_json::{Value, json};

/// Something that has our functions.
trait Leases {
    /// Calls one as the service does; of a refusal the code first.
    async fn call(&self, function: &str, request: Value) -> Result<Value, String>;

    /// Lets time pass for one lease: when it was granted, ends and was wished for.
    async fn age(&self, bucket: &str, user: &str, session: &str, seconds: u32);

    /// A row of `whatsapp_sessions`, where there is one.
    async fn row(&self, user: &str, session: &str) -> Option<Value>;
}

/// The leases of one bucket, on one database; every case has its own.
struct Desk<'a, L> {
    database: &'a L,
    bucket: &'static str,
}

impl<L: Leases> Desk<'_, L> {
    async fn call(&self, function: &str, mut request: Value) -> Result<Value, String> {
        request["bucket"] = self.bucket.into();
        self.database.call(function, request).await
    }

    /// With what is beside the keys; the leases, in the order asked.
    async fn acquire(&self, beside: Value, keys: &[Value]) -> Vec<Value> {
        let mut request = json!({ "ttl": 30, "keys": keys });
        request.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
        leases(self.call("acquire_session_leases", request).await)
    }

    /// Asks for the session u/s as an eager starter does.
    async fn ask(&self, holder: &str) -> Value {
        self.acquire(json!({ "ask": true }), &[key(holder)]).await.remove(0)
    }

    /// Takes u/s if it is free, as a quiet waiter does.
    async fn take(&self, holder: &str) -> Value {
        self.acquire(json!({}), &[key(holder)]).await.remove(0)
    }

    /// The same, which must succeed; the epoch.
    async fn granted(&self, holder: &str) -> i64 {
        let lease = self.take(holder).await;
        assert_eq!(lease["granted"], true, "{lease}");
        lease["epoch"].as_i64().unwrap()
    }

    async fn renew(&self, holder: &str, epoch: i64, head: Option<&str>) -> Value {
        let keys = [held(holder, epoch, head)];
        leases(self.call("renew_session_leases", json!({ "ttl": 30, "keys": keys })).await).remove(0)
    }

    async fn state(&self, holder: &str, epoch: i64) -> Value {
        self.renew(holder, epoch, None).await["state"].clone()
    }

    async fn release(&self, holder: &str, epoch: i64, head: Option<&str>) -> bool {
        let keys = [held(holder, epoch, head)];
        let answer = leases(self.call("release_session_leases", json!({ "keys": keys })).await).remove(0);
        assert_eq!((&answer["user"], &answer["session"]), (&json!("u"), &json!("s")));
        answer["released"].as_bool().unwrap()
    }

    async fn age(&self, seconds: u32) {
        self.database.age(self.bucket, "u", "s", seconds).await;
    }
}

fn key(holder: &str) -> Value {
    json!({ "user": "u", "session": "s", "holder": holder, "above": 0 })
}

fn held(holder: &str, epoch: i64, head: Option<&str>) -> Value {
    json!({ "user": "u", "session": "s", "holder": holder, "epoch": epoch, "head": head })
}

fn leases(answer: Result<Value, impl Debug>) -> Vec<Value> {
    let answer = answer.unwrap();
    let now = answer["now"].as_str().unwrap();
    // 2026-11-23T21:00:00.000000Z
    assert!(now.len() == 27 && now.ends_with('Z'), "{now}");
    now.parse::<jiff::Timestamp>().unwrap();
    answer["leases"].as_array().unwrap().clone()
}

/// Whether a lease that was just given for 30 s still has about that.
fn is_fresh(lease: &Value) -> bool {
    (20.0..=30.0).contains(&lease["expires_in"].as_f64().unwrap())
}

macro_rules! contract {
    ($($room:ident :: $case:ident),* $(,)?) => {
        /// Every case on one database, each in a bucket of its own.
        macro_rules! cases {
            ($open:path) => { $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let database = $open().await;
                    let desk = super::Desk { database: &database, bucket: stringify!($case) };
                    super::$room::$case(&desk).await;
                }
            )* };
        }
        use cases;
    };
}

contract! {
    grants::the_first_grant_has_epoch_1_and_no_head,
    grants::every_grant_has_an_epoch_above_the_last_and_above_what_the_bucket_showed,
    grants::another_holders_lease_is_refused_until_it_runs_out,
    grants::the_same_holder_need_not_wait_but_gets_a_new_epoch,
    grants::a_hostile_epoch_changes_nothing,
    grants::the_last_epoch_is_the_last,
    grants::a_quiet_waiter_does_not_snatch_what_another_asked_for,
    grants::a_wish_counts_for_twenty_seconds_and_ends_with_a_grant,
    grants::a_wish_stands_in_the_way_of_nobody_who_asks,
    grants::all_or_none_grants_nothing_when_one_is_refused_and_remembers_the_wish,
    grants::answers_come_in_the_order_asked,
    grants::buckets_are_apart,
    renewals::a_renewal_goes_on_also_after_the_lease_ran_out,
    renewals::a_wish_shows_in_the_renewal,
    renewals::who_lost_the_lease_is_told_and_changes_nothing,
    renewals::a_late_renewal_does_not_undo_a_release,
    renewals::a_database_that_went_back_in_time_learns_from_the_holder,
    renewals::only_the_holder_of_the_epoch_releases,
    renewals::a_wish_outlives_a_release,
    renewals::the_newest_head_is_remembered_whoever_brings_it,
    requests::five_hundred_keys_are_the_most,
    requests::a_malformed_request_is_refused_whole,
    requests::the_report_tells_what_is_there,
    metadata::a_row_is_made_only_where_that_is_asked_for,
    metadata::facts_are_merged_and_all_else_stays,
    metadata::a_table_that_is_not_there_is_no_error,
    metadata::malformed_rows_are_refused_whole,
}
