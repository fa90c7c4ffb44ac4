//! Keys whose values follow from others.

use super::{BackendMode, Config, Secs};

impl Config {
    /// What keys say of others. An external backend's database is the default one of the HTTP door,
    /// unless another is named.
    pub(super) fn complete(&mut self) {
        if let Some(requests) = self.api.rate_limit_rps {
            let rates = &mut self.rate_limit;
            (rates.requests, rates.window_secs) = (requests, Secs(1));
            rates.burst = requests.saturating_mul(2);
        }
        let hosts = self.backend.url.as_ref().and_then(|url| url.hosts().ok());
        if let (BackendMode::External, Some(hosts)) = (self.backend.mode, hosts)
            && let Some(parts) = hosts.into_iter().next()
            && self.api.database == Self::default().api.database
        {
            self.api.database = parts.database;
        }
    }

    /// `--insecure`: every listener on loopback, nobody is asked for a password.
    pub(super) fn make_insecure(&mut self) {
        self.security.enable_auth = false;
        self.network.listen_addr = vec!["127.0.0.1".into()];
        self.api.listen_addr = vec!["127.0.0.1".into()];
        self.monitoring.metrics_addr = "127.0.0.1".into();
    }
}
