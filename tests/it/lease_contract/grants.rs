//! `acquire_session_leases`.

use serde_json::{Value, json};

use super::{Desk, Leases, is_fresh, key};

pub async fn the_first_grant_has_epoch_1_and_no_head(desk: &Desk<'_, impl Leases>) {
    let mut lease = desk.take("a").await;
    assert!(is_fresh(&lease), "{lease}");
    lease["expires_in"].take();
    let expected =
        json!({ "user": "u", "session": "s", "granted": true, "epoch": 1, "expires_in": null, "head": null });
    assert_eq!(lease, expected);
}

pub async fn every_grant_has_an_epoch_above_the_last_and_above_what_the_bucket_showed(
    desk: &Desk<'_, impl Leases>,
) {
    let above = |above: Value| json!({ "user": "u", "session": "s", "holder": "a", "above": above });
    for (seen, epoch) in [
        (json!(0), 1),
        (json!(7), 8),
        (json!(3), 9),
        (json!(9), 10),
        (Value::Null, 11),
        (json!(1_000_011), 1_000_012),
    ] {
        let lease = desk.acquire(json!({}), &[above(seen)]).await.remove(0);
        assert_eq!(lease["epoch"], epoch);
    }
    // It may also be left out.
    let key = json!({ "user": "u", "session": "s", "holder": "a" });
    assert_eq!(desk.acquire(json!({}), &[key]).await[0]["epoch"], 1_000_013);
}

pub async fn another_holders_lease_is_refused_until_it_runs_out(desk: &Desk<'_, impl Leases>) {
    desk.granted("a").await;
    let mut lease = desk.take("b").await;
    assert!(is_fresh(&lease), "{lease}");
    lease["expires_in"].take();
    let expected = json!({ "user": "u", "session": "s", "granted": false, "reason": "held", "holder": "a",
        "expires_in": null, "epoch": 1 });
    assert_eq!(lease, expected);
    desk.age(15).await;
    assert_eq!(desk.take("b").await["granted"], false);
    desk.age(16).await;
    assert_eq!(desk.granted("b").await, 2);
    assert_eq!(desk.take("a").await["holder"], "b");
}

pub async fn the_same_holder_need_not_wait_but_gets_a_new_epoch(desk: &Desk<'_, impl Leases>) {
    assert_eq!(desk.granted("a").await, 1);
    assert_eq!(desk.granted("a").await, 2);
    assert_eq!(desk.state("a", 1).await, "taken");
    assert_eq!(desk.state("a", 2).await, "held");
}

pub async fn a_hostile_epoch_changes_nothing(desk: &Desk<'_, impl Leases>) {
    let above = |above: Value| json!({ "user": "u", "session": "s", "holder": "b", "above": above });
    for hostile in [json!(1_000_001), json!(99_999_999), json!(1_000_000_000_000_000_i64)] {
        let lease = desk.acquire(json!({ "ask": true }), &[above(hostile)]).await.remove(0);
        let expected = json!({ "user": "u", "session": "s", "granted": false, "reason": "hostile",
            "holder": null, "expires_in": null, "epoch": 0 });
        assert_eq!(lease, expected);
    }
    assert_eq!(desk.granted("a").await, 1);
    // Not even a wish is left by it.
    let lease = desk.acquire(json!({ "ask": true }), &[above(json!(1_000_002))]).await.remove(0);
    assert_eq!(
        (&lease["reason"], &lease["holder"], &lease["epoch"]),
        (&json!("hostile"), &json!("a"), &json!(1))
    );
    assert_eq!(desk.state("a", 1).await, "held");
}

pub async fn the_last_epoch_is_the_last(desk: &Desk<'_, impl Leases>) {
    desk.renew("a", 99_999_998, None).await;
    assert_eq!(desk.granted("a").await, 99_999_999);
    assert_eq!(desk.take("a").await["reason"], "hostile");
    assert_eq!(desk.state("a", 99_999_999).await, "held");
}

pub async fn a_quiet_waiter_does_not_snatch_what_another_asked_for(desk: &Desk<'_, impl Leases>) {
    let epoch = desk.granted("a").await;
    assert_eq!(desk.ask("b").await["reason"], "held");
    assert!(desk.release("a", epoch, None).await);
    // Neither a stranger nor who gave way.
    for quiet in ["c", "a"] {
        let lease = desk.take(quiet).await;
        let expected = json!({ "user": "u", "session": "s", "granted": false, "reason": "wished", "holder": null,
            "expires_in": null, "epoch": 1 });
        assert_eq!(lease, expected);
    }
    // One's own wish is no obstacle.
    assert_eq!(desk.granted("b").await, 2);
}

pub async fn a_wish_counts_for_twenty_seconds_and_ends_with_a_grant(desk: &Desk<'_, impl Leases>) {
    let epoch = desk.granted("a").await;
    desk.ask("b").await;
    desk.release("a", epoch, None).await;
    desk.age(19).await;
    assert_eq!(desk.take("c").await["reason"], "wished");
    desk.age(2).await;
    let epoch = desk.granted("c").await;

    desk.ask("b").await;
    desk.release("c", epoch, None).await;
    assert_eq!(desk.ask("b").await["granted"], true);
    assert!(desk.release("b", epoch + 1, None).await);
    assert_eq!(desk.granted("c").await, epoch + 2);
}

pub async fn a_wish_stands_in_the_way_of_nobody_who_asks(desk: &Desk<'_, impl Leases>) {
    desk.granted("a").await;
    desk.ask("b").await;
    desk.age(15).await;
    desk.ask("b").await;
    desk.age(16).await;
    let expired = desk.take("c").await;
    assert_eq!((&expired["reason"], &expired["holder"]), (&json!("wished"), &json!("a")));
    assert!(expired["expires_in"].as_f64().unwrap() < 0.0, "{expired}");
    assert_eq!(desk.ask("c").await["granted"], true);
    // And so b's wish is gone: c is not asked for it again.
    assert_eq!(desk.state("c", 2).await, "held");
}

pub async fn all_or_none_grants_nothing_when_one_is_refused_and_remembers_the_wish(
    desk: &Desk<'_, impl Leases>,
) {
    let epoch = desk.granted("a").await;
    let free = |holder: &str| json!({ "user": "u", "session": "free", "holder": holder, "above": 4 });
    let both = [free("b"), key("b")];
    let leases = desk.acquire(json!({ "ask": true, "all_or_none": true }), &both).await;
    let expected = json!({ "user": "u", "session": "free", "granted": false, "reason": "others", "holder": null,
        "expires_in": null, "epoch": 0 });
    assert_eq!((&leases[0], &leases[1]["reason"]), (&expected, &json!("held")));
    assert_eq!(desk.state("a", epoch).await, "wanted");
    desk.release("a", epoch, None).await;
    let leases = desk.acquire(json!({ "ask": true, "all_or_none": true }), &both).await;
    assert_eq!((&leases[0]["epoch"], &leases[1]["epoch"]), (&json!(5), &json!(2)));
    // Without it, what is free is granted.
    desk.granted("b").await;
    let leases = desk.acquire(json!({}), &[key("c"), free("b")]).await;
    assert_eq!((&leases[0]["granted"], &leases[1]["granted"]), (&json!(false), &json!(true)));
}

pub async fn answers_come_in_the_order_asked(desk: &Desk<'_, impl Leases>) {
    let names = [("z", "1"), ("a", "2"), ("Z", "3"), ("a", "1"), ("ü", "1"), ("a.b", "1")];
    let key =
        |(user, session)| json!({ "user": user, "session": session, "holder": "h", "epoch": 1, "above": 0 });
    let keys = names.map(key);
    for function in ["acquire_session_leases", "renew_session_leases", "release_session_leases"] {
        let answer = desk.call(function, json!({ "ttl": 30, "keys": keys })).await.unwrap();
        let order: Vec<_> = answer["leases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lease| (&lease["user"], &lease["session"]))
            .collect();
        assert_eq!(order, keys.iter().map(|key| (&key["user"], &key["session"])).collect::<Vec<_>>());
    }
    let none = desk.call("acquire_session_leases", json!({ "ttl": 30, "keys": [] })).await.unwrap();
    assert_eq!(none["leases"], json!([]));
}

pub async fn buckets_are_apart(desk: &Desk<'_, impl Leases>) {
    desk.granted("a").await;
    let other = Desk { database: desk.database, bucket: "another bucket" };
    assert_eq!(other.granted("b").await, 1);
    assert_eq!(desk.state("a", 1).await, "held");
}
