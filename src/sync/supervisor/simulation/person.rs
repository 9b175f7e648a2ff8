//! What a person does on a disk where no sidecar runs.

use std::sync::Arc;

use super::bot::Files;
use super::ledger::tree_at;
use super::{World, idle};
use crate::history::Id;
use crate::sync::env::Env;
use crate::sync::points::Wanted;
use crate::sync::report::UndeleteReport;
use crate::sync::supervisor::testing::key;
use crate::sync::{deletion, mark};

impl World {
    pub async fn rewind(&mut self, at: usize, back: u8) {
        let Some(target) = self.ledger.one_of(back) else { return };
        let Some(env) = self.alone(at) else { return };
        // It may be stored although nobody learns of it.
        self.ledger.begin_anew(None);
        let going = key();
        let rewound = mark::rewind(&env, &going, Wanted::Id(target)).await;
        drop(env);
        idle().await;
        if let Ok(written) = rewound {
            self.ledger.go_back(written.commit.epoch, tree_at(&self.site, target).await);
        }
    }

    /// A person who knows that every bot was stopped; one beside which its sidecar died may still be refused.
    pub async fn delete(&mut self, at: usize) {
        if self.pods.iter().any(|pod| pod.running.is_some()) {
            return;
        }
        let Some(env) = self.alone(at) else { return };
        let deleted = deletion::delete(&env, &key(), false).await;
        drop(env);
        idle().await;
        if let Ok(report) = deleted {
            self.ledger.begin_anew(None);
            self.ledger.go_back(report.commit.parse::<Id>().unwrap().epoch, Files::new());
        }
    }

    pub async fn undelete(&mut self, at: usize) {
        let Some(env) = self.alone(at) else { return };
        let back = deletion::undelete(&env, &key()).await;
        drop(env);
        idle().await;
        if let Ok(UndeleteReport { commit, restored: Some(restored), .. }) = back {
            self.ledger.begin_anew(None);
            let tree = tree_at(&self.site, restored.parse().unwrap()).await;
            self.ledger.go_back(commit.parse::<Id>().unwrap().epoch, tree);
        }
    }

    /// What a command works with where no sidecar runs.
    fn alone(&mut self, at: usize) -> Option<Arc<Env>> {
        let life = self.next();
        let pod = &mut self.pods[at];
        if pod.running.is_some() {
            return None;
        }
        pod.bot = None;
        pod.machine = pod.machine.revived();
        Some(pod.env(&self.site, life).expect("nothing is wrong with the disk"))
    }
}
