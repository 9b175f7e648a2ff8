//! The sheet that a scrape fills in.

use std::fmt::Debug;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// What all names begin with.
const PREFIX: &str = "session_sidecar";

/// The labels of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The sheet that a scrape fills in.
pub(super) struct Sheet(Registry);

impl Default for Sheet {
    fn default() -> Self {
        Self(Registry::with_prefix(PREFIX))
    }
}

impl Sheet {
    /// A metric that counts on by itself.
    pub(super) fn register<M>(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: &M)
    where
        M: Clone + Debug + EncodeMetric + Send + Sync + 'static,
    {
        self.put(name, help, unit, metric.clone());
    }

    /// Facts that do not change.
    pub(super) fn info(&mut self, name: &str, help: &str, facts: Labels) {
        self.0.register(name, help, Info::new(facts));
    }

    /// What goes up and down.
    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in series {
            family.get_or_create(&labels).set(value);
        }
        self.put(name, help, unit, family);
    }

    /// A gauge that sessions have.
    pub(super) fn each(&mut self, name: &str, help: &str, unit: Option<Unit>, series: &[(Labels, f64)]) {
        self.gauge(name, help, unit, series.iter().cloned());
    }

    /// What was counted elsewhere.
    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        series: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in series {
            family.get_or_create(&labels).inc_by(value);
        }
        self.put(name, help, unit, family);
    }

    /// Seconds that add up.
    pub(super) fn counter_of_time(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in series {
            family.get_or_create(&labels).inc_by(value);
        }
        self.put(name, help, Some(Unit::Seconds), family);
    }

    /// As OpenMetrics text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("a string takes everything");
        text
    }

    fn put<M>(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: M)
    where
        M: Debug + EncodeMetric + Send + Sync + 'static,
    {
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, metric),
            None => self.0.register(name, help, metric),
        }
    }
}

/// What stands for all sessions where they are not told apart.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fold {
    /// All of them together.
    Sum,
    /// The greatest.
    Max,
    /// The least.
    Min,
}

impl Fold {
    /// One series a session that has the value, under its name; without names one for all.
    pub(super) fn over(
        self,
        values: impl Iterator<Item = Option<f64>>,
        names: Option<&[String]>,
    ) -> Vec<(Labels, f64)> {
        if let Some(names) = names {
            let series = values.zip(names);
            let series_of =
                |(value, name): (Option<f64>, &String)| Some((vec![("session", name.clone())], value?));
            return series.filter_map(series_of).collect();
        }
        let values = values.flatten();
        let all = match self {
            Self::Sum => Some(values.sum()),
            Self::Max => values.reduce(f64::max),
            Self::Min => values.reduce(f64::min),
        };
        all.map(|all| (vec![], all)).into_iter().collect()
    }
}
