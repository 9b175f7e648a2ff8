//! The lease functions, as the SQL of `supabase/migrations` has them: pure, over a table and the database's now.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::PgError;
use super::lease_table::{Lease, LeaseTable};
use super::requests::{Key, LAST_EPOCH, Request};

/// How far above its row an epoch may be asked for.
const LEAP: i64 = 1_000_000;

fn answer(now: Timestamp, leases: &[Value]) -> Value {
    json!({ "now": format!("{now:.6}"), "leases": leases })
}

/// One refusal of [`LeaseTable::acquire`].
fn refused(user: &str, session: &str, reason: Option<&str>, row: Option<&Lease>, now: Timestamp) -> Value {
    json!({
        "user": user, "session": session, "granted": false, "reason": reason,
        "holder": row.and_then(|row| row.holder.as_ref()),
        "expires_in": row.and_then(|row| row.expires_in(now)),
        "epoch": row.map_or(0, |row| row.epoch),
    })
}

impl LeaseTable {
    /// Why a key is not granted.
    fn refusal(&self, bucket: &str, key: &Key, ask: bool, now: Timestamp) -> Option<&'static str> {
        let row = self.get(bucket, &key.user, &key.session);
        let epoch = row.map_or(0, |row| row.epoch);
        if key.above() > epoch + LEAP || epoch.max(key.above()) >= LAST_EPOCH {
            return Some("hostile");
        }
        let row = row?;
        if !row.is_free(&key.holder, now) {
            return Some("held");
        }
        (!ask && row.is_wanted(&key.holder, now)).then_some("wished")
    }

    /// `acquire_session_leases`: a new epoch for every key that is free.
    ///
    /// # Errors
    /// `PT400`: the request is malformed.
    pub fn acquire(&mut self, request: Value, now: Timestamp) -> Result<Value, PgError> {
        let request = Request::read(request, false)?;
        let (ask, all_or_none, expires_at) = (request.ask(), request.all_or_none(), request.until(now)?);
        let Request { bucket, keys, .. } = request;
        let none = all_or_none && keys.iter().any(|key| self.refusal(&bucket, key, ask, now).is_some());
        let mut leases = Vec::with_capacity(keys.len());
        for key in keys {
            let refusal = self.refusal(&bucket, &key, ask, now).or(none.then_some("others"));
            let above = key.above();
            let Key { user, session, holder, .. } = key;
            if refusal == Some("hostile") {
                leases.push(refused(&user, &session, refusal, self.get(&bucket, &user, &session), now));
                continue;
            }
            let row = self.row(&bucket, &user, &session, now);
            if refusal.is_some() {
                if ask && refusal == Some("held") {
                    (row.wish_by, row.wish_at, row.updated_at) = (Some(holder), Some(now), now);
                }
                leases.push(refused(&user, &session, refusal, Some(row), now));
                continue;
            }
            row.epoch = row.epoch.max(above) + 1;
            (row.holder, row.granted_at, row.expires_at) = (Some(holder), Some(now), Some(expires_at));
            (row.wish_by, row.wish_at, row.updated_at) = (None, None, now);
            leases.push(json!({ "user": user, "session": session, "granted": true, "epoch": row.epoch,
                "expires_in": row.expires_in(now), "head": row.head }));
        }
        Ok(answer(now, &leases))
    }

    /// `renew_session_leases`: more time for what is still ours.
    ///
    /// # Errors
    /// `PT400`: the request is malformed.
    pub fn renew(&mut self, request: Value, now: Timestamp) -> Result<Value, PgError> {
        let request = Request::read(request, true)?;
        let expires_at = request.until(now)?;
        let Request { bucket, keys, .. } = request;
        let leases = keys.into_iter().map(|Key { user, session, holder, epoch, head, .. }| {
            let row = self.row(&bucket, &user, &session, now);
            let ours = row.holder.as_ref() == Some(&holder);
            let state = if row.epoch < epoch {
                // The database went back in time.
                (row.epoch, row.holder, row.granted_at) = (epoch, Some(holder), Some(now));
                "held"
            } else if row.epoch == epoch && ours {
                if row.is_wanted(&holder, now) { "wanted" } else { "held" }
            } else if row.epoch == epoch && row.holder.is_none() {
                "free"
            } else {
                "taken"
            };
            if matches!(state, "held" | "wanted") {
                (row.expires_at, row.updated_at) = (Some(expires_at), now);
                row.raise_head(head);
            }
            json!({ "user": user, "session": session, "state": state, "epoch": row.epoch,
                "expires_in": row.expires_in(now), "holder": row.holder })
        });
        let leases: Vec<_> = leases.collect();
        Ok(answer(now, &leases))
    }

    /// `release_session_leases`: what is still ours is free from now on.
    ///
    /// # Errors
    /// `PT400`: the request is malformed.
    pub fn release(&mut self, request: Value, now: Timestamp) -> Result<Value, PgError> {
        let Request { bucket, keys, .. } = Request::read(request, true)?;
        let leases = keys.into_iter().map(|Key { user, session, holder, epoch, head, .. }| {
            let row = self.get_mut(&bucket, &user, &session);
            let row = row.filter(|row| row.epoch == epoch && row.holder.as_ref() == Some(&holder));
            let released = row.is_some();
            if let Some(row) = row {
                (row.holder, row.expires_at, row.updated_at) = (None, None, now);
                row.raise_head(head);
            }
            json!({ "user": user, "session": session, "released": released })
        });
        let leases: Vec<_> = leases.collect();
        Ok(answer(now, &leases))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn acquire(table: &mut LeaseTable, holder: &str, ask: bool, now: Timestamp) -> Value {
        let key = json!({ "user": "u", "session": "s", "holder": holder, "above": 0 });
        let request = json!({ "bucket": "b", "ttl": 30, "ask": ask, "keys": [key] });
        table.acquire(request, now).unwrap()["leases"][0].clone()
    }

    fn held(holder: &str, epoch: i64, head: Option<&str>) -> Value {
        let key = json!({ "user": "u", "session": "s", "holder": holder, "epoch": epoch, "head": head });
        json!({ "bucket": "b", "ttl": 30, "keys": [key] })
    }

    fn renew(table: &mut LeaseTable, holder: &str, epoch: i64, now: Timestamp) -> Value {
        table.renew(held(holder, epoch, None), now).unwrap()["leases"][0].clone()
    }

    fn release(table: &mut LeaseTable, holder: &str, epoch: i64, now: Timestamp) -> Value {
        table.release(held(holder, epoch, None), now).unwrap()["leases"][0]["released"].clone()
    }

    fn row(table: &LeaseTable) -> Lease {
        table.get("b", "u", "s").unwrap().clone()
    }

    #[test]
    fn a_free_lease_is_granted_with_an_epoch_above_the_row_and_what_was_listed() {
        let mut table = LeaseTable::default();
        let key = json!({ "user": "u", "session": "s", "holder": "a", "above": 3 });
        let request = json!({ "bucket": "b", "ttl": 0.5 + 29.5, "keys": [key] });
        let wanted = json!({ "now": "2023-11-14T22:13:20.000000Z", "leases": [
            { "user": "u", "session": "s", "granted": true, "epoch": 4, "expires_in": 30.0, "head": null }] });
        assert_eq!(table.acquire(request, at(0)), Ok(wanted));
        assert_eq!((row(&table).granted_at, row(&table).expires_at), (Some(at(0)), Some(at(30))));
        assert_eq!(acquire(&mut table, "b", false, at(30))["epoch"], 5, "it ran out: the row's epoch counts");
    }

    #[test]
    fn a_held_lease_is_refused_and_only_who_asks_leaves_a_wish() {
        let mut table = LeaseTable::default();
        acquire(&mut table, "a", true, at(0));
        let wanted = json!({ "user": "u", "session": "s", "granted": false, "reason": "held", "holder": "a",
            "expires_in": 20.0, "epoch": 1 });
        assert_eq!(acquire(&mut table, "b", false, at(10)), wanted);
        assert_eq!(row(&table).wish_by, None);
        assert_eq!(acquire(&mut table, "b", true, at(10)), wanted);
        assert_eq!((row(&table).wish_by, row(&table).wish_at), (Some("b".into()), Some(at(10))));
        assert_eq!(acquire(&mut table, "a", true, at(11))["epoch"], 2, "the same holder skips the wait");
        assert_eq!((row(&table).wish_by, row(&table).wish_at), (None, None), "a grant clears the wish");
    }

    #[test]
    fn a_quiet_waiter_does_not_snatch_what_another_asked_for() {
        let mut table = LeaseTable::default();
        acquire(&mut table, "a", true, at(0));
        acquire(&mut table, "b", true, at(5));
        assert_eq!(release(&mut table, "a", 1, at(6)), true);
        let refused = acquire(&mut table, "a", false, at(7));
        assert_eq!((&refused["reason"], &refused["holder"]), (&json!("wished"), &Value::Null));
        let mut later = table.clone();
        assert_eq!(acquire(&mut later, "a", false, at(25))["granted"], true, "a wish counts for 20 s");
        assert_eq!(acquire(&mut table.clone(), "c", true, at(7))["granted"], true, "who asks does not wait");
        assert_eq!(acquire(&mut table, "b", false, at(7))["granted"], true, "their own wish");
    }

    #[test]
    fn an_epoch_far_above_its_row_is_hostile_and_makes_no_row() {
        let mut table = LeaseTable::default();
        let ask = |table: &mut LeaseTable, above: i64| {
            let key = json!({ "user": "u", "session": "s", "holder": "a", "above": above });
            let request = json!({ "bucket": "b", "ttl": 30, "keys": [key] });
            table.acquire(request, at(0)).unwrap()["leases"][0].clone()
        };
        let wanted = json!({ "user": "u", "session": "s", "granted": false, "reason": "hostile",
            "holder": null, "expires_in": null, "epoch": 0 });
        assert_eq!(ask(&mut table, LEAP + 1), wanted);
        assert_eq!(ask(&mut table, i64::MAX), wanted);
        assert_eq!(table, LeaseTable::default());
        assert_eq!(ask(&mut table, LEAP)["epoch"], LEAP + 1);
        table.row("b", "u", "s", at(0)).epoch = LAST_EPOCH - 1;
        assert_eq!(ask(&mut table, 0)["epoch"], LAST_EPOCH);
        assert_eq!(ask(&mut table, 0)["reason"], "hostile", "no epoch is left");
    }

    #[test]
    fn all_or_none_grants_none_when_one_is_refused_and_still_records_the_wish() {
        let mut table = LeaseTable::default();
        acquire(&mut table, "a", true, at(0));
        let key = |session: &str| json!({ "user": "u", "session": session, "holder": "b" });
        let request = json!({ "bucket": "b", "ttl": 30, "ask": true, "all_or_none": true,
            "keys": [key("free"), key("s")] });
        let leases = table.acquire(request.clone(), at(1)).unwrap()["leases"].clone();
        assert_eq!((&leases[0]["reason"], &leases[1]["reason"]), (&json!("others"), &json!("held")));
        assert_eq!((&leases[0]["holder"], &leases[0]["epoch"]), (&Value::Null, &json!(0)));
        assert_eq!(row(&table).wish_by, Some("b".into()));
        assert_eq!(table.get("b", "u", "free").unwrap().holder, None);
        let leases = table.acquire(request, at(30)).unwrap()["leases"].clone();
        assert_eq!((&leases[0]["epoch"], &leases[1]["epoch"]), (&json!(1), &json!(2)));
    }

    #[test]
    fn a_renewal_keeps_what_nobody_took_also_after_it_ran_out() {
        let mut table = LeaseTable::default();
        acquire(&mut table, "a", true, at(0));
        let wanted = json!({ "user": "u", "session": "s", "state": "held", "epoch": 1, "expires_in": 30.0,
            "holder": "a" });
        assert_eq!(renew(&mut table, "a", 1, at(500)), wanted);
        assert_eq!(row(&table).granted_at, Some(at(0)));
        acquire(&mut table, "b", true, at(501));
        assert_eq!(renew(&mut table, "a", 1, at(502))["state"], "wanted");
        assert_eq!(row(&table).expires_at, Some(at(532)), "more time also for what is wanted");
        assert_eq!(renew(&mut table, "a", 1, at(521))["state"], "held", "the wish is old");
    }

    #[test]
    fn a_renewal_after_a_newer_grant_or_of_another_holder_says_taken() {
        let mut table = LeaseTable::default();
        acquire(&mut table, "a", true, at(0));
        acquire(&mut table, "b", true, at(30));
        let before = table.clone();
        let wanted = json!({ "user": "u", "session": "s", "state": "taken", "epoch": 2, "expires_in": 29.0,
            "holder": "b" });
        assert_eq!(renew(&mut table, "a", 1, at(31)), wanted);
        assert_eq!(renew(&mut table, "a", 2, at(31))["state"], "taken");
        assert_eq!(table, before);
    }

    #[test]
    fn a_late_renewal_does_not_undo_a_release() {
        let mut table = LeaseTable::default();
        acquire(&mut table, "a", true, at(0));
        release(&mut table, "a", 1, at(1));
        let before = table.clone();
        let wanted = json!({ "user": "u", "session": "s", "state": "free", "epoch": 1, "expires_in": null,
            "holder": null });
        assert_eq!(renew(&mut table, "a", 1, at(2)), wanted);
        assert_eq!(table, before);
    }

    #[test]
    fn a_renewal_mends_a_database_that_went_back_in_time() {
        let mut table = LeaseTable::default();
        assert_eq!(renew(&mut table, "a", 7, at(0))["state"], "held");
        assert_eq!((row(&table).epoch, row(&table).holder), (7, Some("a".into())));
        acquire(&mut table, "b", true, at(1));
        let renewed = renew(&mut table, "c", 9, at(2));
        assert_eq!(
            (&renewed["state"], &renewed["epoch"], &renewed["holder"]),
            (&json!("held"), &json!(9), &json!("c"))
        );
        assert_eq!(row(&table).expires_at, Some(at(32)));
    }

    #[test]
    fn a_release_frees_what_is_ours_and_the_wish_stays() {
        let mut table = LeaseTable::default();
        assert_eq!(release(&mut table, "a", 1, at(0)), false, "no row");
        acquire(&mut table, "a", true, at(0));
        acquire(&mut table, "b", true, at(1));
        assert_eq!(release(&mut table, "b", 1, at(2)), false);
        assert_eq!(release(&mut table, "a", 2, at(2)), false);
        assert_eq!(release(&mut table, "a", 1, at(2)), true);
        let lease = row(&table);
        assert_eq!((lease.holder, lease.expires_at, lease.epoch), (None, None, 1));
        assert_eq!(lease.wish_by, Some("b".into()));
    }

    #[test]
    fn the_newest_head_is_kept_and_given_with_the_next_grant() {
        let mut table = LeaseTable::default();
        acquire(&mut table, "a", true, at(0));
        for (head, kept) in [(Some("1-2"), "1-2"), (Some("1-1"), "1-2"), (None, "1-2"), (Some("1-3"), "1-3")]
        {
            table.renew(held("a", 1, head), at(1)).unwrap();
            assert_eq!(row(&table).head.as_deref(), Some(kept));
        }
        table.renew(held("b", 1, Some("9-9")), at(2)).unwrap();
        table.release(held("a", 1, Some("1-4")), at(3)).unwrap();
        assert_eq!(acquire(&mut table, "b", true, at(4))["head"], "1-4");
    }

    #[test]
    fn a_malformed_request_is_refused_whole() {
        let mut table = LeaseTable::default();
        let key = json!({ "user": "u", "session": "s", "holder": "a" });
        let many = vec![key.clone(); 501];
        for request in [
            Value::Null,
            json!({ "bucket": "b", "ttl": 30 }),
            json!({ "ttl": 30, "keys": [key] }),
            json!({ "bucket": "b", "keys": [key] }),
            json!({ "bucket": "b", "ttl": 0.9, "keys": [key] }),
            json!({ "bucket": "b", "ttl": 3601, "keys": [key] }),
            json!({ "bucket": "b", "ttl": "30", "keys": [key] }),
            json!({ "bucket": "b", "ttl": 30, "keys": [{ "user": "u", "session": "s" }] }),
            json!({ "bucket": "b", "ttl": 30, "keys": [{ "user": "", "session": "s", "holder": "a" }] }),
            json!({ "bucket": "b", "ttl": 30, "keys": [{ "user": "u", "session": "s", "holder": "a", "above": -1 }] }),
            json!({ "bucket": "b", "ttl": 30, "keys": [key, key] }),
            json!({ "bucket": "b", "ttl": 30, "keys": many }),
        ] {
            let error = table.acquire(request, at(0)).unwrap_err();
            assert_eq!((error.status, error.code), (400, "PT400"));
        }
        for epoch in [0, LAST_EPOCH + 1] {
            assert!(table.renew(held("a", epoch, None), at(0)).is_err());
            assert!(table.release(held("a", epoch, None), at(0)).is_err());
        }
        assert_eq!(table, LeaseTable::default());
    }
}
