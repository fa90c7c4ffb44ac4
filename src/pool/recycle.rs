//! What a connection needs before its next session: decided here, carried out by the pool.

use std::time::Duration;

use crate::config::RecyclingStrategy;

/// What is known of a connection that comes back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Returned {
    /// Time since its log-in.
    pub age: Duration,
    /// `pool.max_lifetime_secs`.
    pub max_lifetime: Option<Duration>,
    /// It reported an error of class 08, 57 or XX.
    pub had_severe_error: bool,
    /// The session may have changed something that is not tracked.
    pub has_unknown_state: bool,
}

/// How it is made ready for the next session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recycling {
    /// The transaction is ended and the settings that are known to differ are reset.
    Fast,
    /// Everything that a session can leave behind is discarded, prepared statements excepted.
    Checked,
    /// It is closed, and another is made when one is needed.
    Replace,
}

impl Recycling {
    /// The `strategy` of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Recycling::Fast => "fast",
            Recycling::Checked => "checked",
            Recycling::Replace => "replace",
        }
    }
}

/// Decides by the configured strategy. A session with unknown state never gets away with less
/// than [`Recycling::Checked`]: the next one must not see it.
pub fn decide(strategy: RecyclingStrategy, returned: &Returned) -> Recycling {
    let least = match returned.has_unknown_state {
        true => Recycling::Checked,
        false => Recycling::Fast,
    };
    match strategy {
        RecyclingStrategy::Fast => least,
        RecyclingStrategy::Checked => Recycling::Checked,
        RecyclingStrategy::Replace => Recycling::Replace,
        RecyclingStrategy::Adaptive => adaptive(returned, least),
    }
}

/// The older a connection is, the less it is trusted.
fn adaptive(returned: &Returned, least: Recycling) -> Recycling {
    let spent = returned
        .max_lifetime
        .map_or(0.0, |life| returned.age.as_secs_f64() / life.as_secs_f64().max(f64::MIN_POSITIVE));
    match spent {
        _ if returned.had_severe_error => Recycling::Replace,
        spent if spent >= 0.9 => Recycling::Replace,
        spent if spent >= 0.5 => Recycling::Checked,
        _ => least,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecyclingStrategy as S;

    fn aged(secs: u64) -> Returned {
        let max_lifetime = Some(Duration::from_secs(100));
        Returned { age: Duration::from_secs(secs), max_lifetime, ..Returned::default() }
    }

    #[test]
    fn fixed_strategies_do_not_look_at_age() {
        for secs in [0, 60, 99, 1000] {
            assert_eq!(decide(S::Fast, &aged(secs)), Recycling::Fast);
            assert_eq!(decide(S::Checked, &aged(secs)), Recycling::Checked);
            assert_eq!(decide(S::Replace, &aged(secs)), Recycling::Replace);
        }
    }

    #[test]
    fn the_adaptive_one_trusts_young_connections() {
        let expected = [
            (0, Recycling::Fast),
            (49, Recycling::Fast),
            (50, Recycling::Checked),
            (89, Recycling::Checked),
            (90, Recycling::Replace),
            (1000, Recycling::Replace),
        ];
        for (secs, recycling) in expected {
            assert_eq!(decide(S::Adaptive, &aged(secs)), recycling, "{secs}");
        }
        let unlimited = Returned { max_lifetime: None, ..aged(1_000_000) };
        assert_eq!(decide(S::Adaptive, &unlimited), Recycling::Fast);
    }

    #[test]
    fn unknown_state_and_severe_errors_are_not_passed_on() {
        let unknown = Returned { has_unknown_state: true, ..aged(0) };
        assert_eq!(decide(S::Fast, &unknown), Recycling::Checked);
        assert_eq!(decide(S::Adaptive, &unknown), Recycling::Checked);
        let severe = Returned { had_severe_error: true, ..aged(0) };
        assert_eq!(decide(S::Adaptive, &severe), Recycling::Replace);
        assert_eq!(decide(S::Fast, &severe), Recycling::Fast);
    }
}
