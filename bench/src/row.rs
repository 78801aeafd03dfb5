//! One line of the table.

use crate::contest::Timing;

/// One comparison.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// What Cardan is compared with.
    pub(crate) peer: String,
    pub(crate) ours: Figure,
    pub(crate) theirs: Figure,
    pub(crate) target: Option<Target>,
}

/// What was measured of one side.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Figure {
    Time(Timing),
    /// The same, compared by the slowest of a hundred.
    Tail(Timing),
    /// A factor, such as how much more two threads do than one, and the time of one operation there.
    Factor {
        factor: f64,
        ns: f64,
    },
    Bytes(f64),
    /// Requests per second.
    Rate(f64),
}

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::AtMost(value) | Self::AtLeast(value) => value,
        }
    }

    fn is_met_by(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(value) => ratio <= value,
            Self::AtLeast(value) => ratio >= value,
        }
    }
}

impl Figure {
    /// The number that ratios are made of.
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::Time(timing) => timing.p50_ns,
            Self::Tail(timing) => timing.p99_ns,
            Self::Factor { factor: value, .. } | Self::Bytes(value) | Self::Rate(value) => value,
        }
    }

    /// Nanoseconds of one operation, where the figure is about time.
    pub(crate) fn ns(self) -> Option<f64> {
        match self {
            Self::Time(timing) | Self::Tail(timing) => Some(timing.p50_ns),
            Self::Factor { ns, .. } => Some(ns),
            Self::Rate(per_second) => Some(1e9 / per_second),
            Self::Bytes(_) => None,
        }
    }

    pub(crate) fn p99_ns(self) -> Option<f64> {
        match self {
            Self::Time(timing) | Self::Tail(timing) => Some(timing.p99_ns),
            _ => None,
        }
    }
}

impl Row {
    pub(crate) fn ratio(&self) -> f64 {
        self.ours.value() / self.theirs.value()
    }

    /// `None` without a target.
    pub(crate) fn met(&self) -> Option<bool> {
        self.target.map(|target| target.is_met_by(self.ratio()))
    }
}
