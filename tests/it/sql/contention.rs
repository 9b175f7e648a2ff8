//! Many at once: never two holders, epochs only rise, nobody waits in a circle.

use futures_util::future::{join_all, try_join_all};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::support::postgres::{Project, call};

fn key(session: &str, holder: &str, epoch: i64) -> Value {
    json!({ "user": "u", "session": session, "holder": holder, "epoch": epoch })
}

fn request(keys: &[Value], ask: bool) -> Value {
    json!({ "bucket": "whatsapp-sessions", "ttl": 30, "ask": ask, "keys": keys })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_that_fight_for_one_lease_one_gets_it_in_each_of_1000_rounds() {
    let project = Project::ready().await;
    let clients = join_all((0..32).map(|_| project.request("service_role", None))).await;
    let owner = project.connect("postgres").await;
    // Who was granted it last, as whom, and its epoch.
    let mut last: Option<(usize, String, i64)> = None;
    let mut grants = 0;
    for round in 0.. {
        let before = last.as_ref();
        let asked = clients.iter().enumerate().map(|(n, client)| async move {
            // Who held it before comes late, with a renewal or a release, in the middle of it.
            let (function, holder, epoch) = match before {
                Some((holder, name, epoch)) if *holder == n => {
                    (["renew_session_leases", "release_session_leases"][round / 2 % 2], name.clone(), *epoch)
                }
                _ => ("acquire_session_leases", format!("{n} of {round}"), 1),
            };
            let answer = call(client, function, &request(&[key("s", &holder, epoch)], true)).await.unwrap();
            (n, holder, answer["leases"][0].clone())
        });
        // Who is told that it is theirs, by a grant, or by a renewal that came before any.
        let answers = join_all(asked).await;
        let ours = |lease: &Value| {
            lease["granted"] == true || lease["state"] == "held" || lease["state"] == "wanted"
        };
        let (mut holders, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(_, _, lease)| ours(lease));
        assert_eq!(holders.len(), 1, "round {round}: {holders:?}");
        let (n, holder, lease) = holders.remove(0);
        let epoch = lease["epoch"].as_i64().unwrap();
        let granted = lease["granted"] == true;
        assert_eq!(
            epoch,
            before.map_or(0, |(_, _, epoch)| *epoch) + i64::from(granted),
            "round {round}: {lease}"
        );
        for (_, _, lease) in refused.iter().filter(|(_, _, lease)| lease["granted"] == false) {
            assert_eq!((&lease["reason"], &lease["epoch"]), (&json!("held"), &json!(epoch)));
            assert_eq!(lease["holder"], holder);
        }
        grants += u32::from(granted);
        if grants == 1000 {
            break;
        }
        if round % 2 == 0 {
            let answer =
                call(&owner, "release_session_leases", &request(&[key("s", &holder, epoch)], false)).await;
            assert_eq!(answer.unwrap()["leases"][0]["released"], true);
        } else {
            owner.execute("update session_sidecar_leases set expires_at = now()", &[]).await.unwrap();
        }
        last = Some((n, holder, epoch));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_for_many_sessions_in_any_order_never_wait_in_a_circle() {
    let project = Project::ready().await;
    let clients = join_all((0..12).map(|_| project.request("service_role", None))).await;
    let work = clients.iter().enumerate().map(|(n, client)| async move {
        let mut random = StdRng::seed_from_u64(n as u64);
        for _ in 0..60 {
            let mut sessions: Vec<u32> = (0..40).collect();
            sessions.shuffle(&mut random);
            sessions.truncate(random.random_range(2..20));
            let keys: Vec<_> = sessions.iter().map(|s| key(&s.to_string(), &n.to_string(), 1)).collect();
            let functions = ["acquire_session_leases", "renew_session_leases", "release_session_leases"];
            let function = functions[random.random_range(0..3)];
            call(client, function, &request(&keys, true)).await?;
            let row =
                |s: &u32| json!({ "user": "u", "session": s.to_string(), "sidecar": {}, "create": true });
            let rows: Vec<_> = sessions.iter().map(row).collect();
            let noted = json!({ "table": "whatsapp_sessions", "rows": rows });
            let noted = call(client, "note_session_metadata", &noted).await?;
            assert!(noted["rows"].as_array().unwrap().iter().all(|row| row["noted"] == true), "{noted}");
        }
        Ok::<_, String>(())
    });
    try_join_all(work).await.unwrap();
}
