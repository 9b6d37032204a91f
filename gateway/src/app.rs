//! What all requests share.

use crate::access::origins::{BasePath, HostNames, OriginTable, RefusedNames, ReportedNames, Site};
use crate::access::{AccessLists, Attempts, ClientIp, TrustedProxies};
use crate::accounts::{Database, Hasher, UserId};
use crate::auth::{Sessions, SetupCode, SignInLinks, Tickets};
use crate::clock;
use crate::clock_trust::ClockTrust;
use crate::config::{Config, ConfigFile, CustomNodeRoutes};
use crate::control::Announcements;
use crate::engine::Engines;
use crate::files::DataDirectory;
use crate::gallery::Gallery;
use crate::http::tls::Tls;
use crate::http::{Connections, RequestContext, Waiting};
use crate::jobs::{NodePolicy, Notifier, Queue};
use crate::platform;
use crate::sandbox;
use crate::setup::Setup;
use crate::sharing::Sharing;
use crate::statistics::Statistics;
use crate::store::{AuditEntry, AuditEvent, Store};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

/// What the configuration means for the door, made once for each configuration.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) origins: OriginTable,
    /// Nodes refused to users, and to admins.
    pub(crate) user_nodes: NodePolicy,
    pub(crate) admin_nodes: NodePolicy,
}

impl Live {
    pub(crate) fn of(config: &Config, reported: &ReportedNames) -> Self {
        let names = HostNames::new(
            &platform::host_name(),
            &config.sharing.name,
            &config.allowed_hosts,
            reported.clone(),
        );
        // Checked with the settings.
        let base = BasePath::parse(&config.sharing.base_path).unwrap_or_default();
        Self {
            trusted_proxies: TrustedProxies::new(config.trusted_proxies.clone()),
            origins: OriginTable::new(names, base),
            user_nodes: NodePolicy::new(&config.nodes.deny),
            admin_nodes: NodePolicy::new(&config.nodes.deny_admins),
        }
    }
}

/// Everything that handlers work on; each part has one owner and guards itself.
#[derive(Debug)]
pub struct App {
    pub(crate) data: DataDirectory,
    pub(crate) config: Arc<ConfigFile>,
    /// Settings at the start, to tell what waits for a restart.
    pub(crate) started_with: Arc<Config>,
    pub(crate) live: ArcSwap<Live>,
    /// Names that other programs report for this machine.
    pub(crate) reported_names: ReportedNames,
    /// Names and proxies that were refused and may be meant well.
    pub(crate) refused_names: RefusedNames,
    pub(crate) store: Arc<Store>,
    pub(crate) accounts: Arc<Database>,
    pub(crate) hasher: Arc<Hasher>,
    pub(crate) sessions: Sessions,
    pub(crate) setup_code: SetupCode,
    pub(crate) attempts: Attempts,
    pub(crate) waiting_sign_ins: Waiting,
    pub(crate) lists: AccessLists,
    pub(crate) connections: Connections,
    pub(crate) engines: Engines,
    pub(crate) jobs: Queue,
    pub(crate) clock_trust: ClockTrust,
    pub(crate) notifier: Notifier,
    pub(crate) links: SignInLinks,
    pub(crate) tickets: Tickets,
    pub(crate) announcements: Announcements,
    pub(crate) sharing: Sharing,
    /// Encryption, while there is any.
    pub(crate) tls: ArcSwapOption<Tls>,
    pub(crate) gallery: Gallery,
    pub(crate) statistics: Statistics,
    /// When keyboard or mouse of this machine were last known to be used, seconds since 1970; 0: never.
    pub(crate) owner_present_at: AtomicI64,
    pub(crate) setup: Setup,
}

impl App {
    /// Writes down who did what.
    pub(crate) fn audit(
        &self,
        event: AuditEvent,
        user: Option<&str>,
        address: Option<ClientIp>,
        detail: Option<&str>,
    ) {
        let entry = AuditEntry {
            event,
            user: user.map(str::to_owned),
            address: address.map(|address| address.to_string()),
            detail: detail.map(|detail| detail.chars().take(500).collect()),
        };
        self.store.audit(clock::now(), entry);
        // Whatever is worth a row may be worth a look at the status.
        self.announcements.changed();
    }

    /// Brings the settings, as they are now, into force where they are kept in another form.
    pub(crate) fn config_changed(&self) {
        let live = Live::of(&self.config.current(), &self.reported_names);
        self.live.store(Arc::new(live));
        self.engines.look_again();
        self.jobs.follow(&self.config.current());
        self.end_denied_connections();
        self.announcements.changed();
    }

    /// Whether users who are not admins may use a route that is not ComfyUI's own: named by the
    /// settings, or answered by an engine that the system holds to what that user may do.
    pub(crate) fn custom_routes_are_open(
        &self,
        config: &Config,
        user: &UserId,
        normal_path: &str,
    ) -> bool {
        let path = normal_path.strip_prefix("/api").unwrap_or(normal_path);
        let is_named = config.allowed_routes.iter().any(|route| {
            path.starts_with(route.as_str()) || normal_path.starts_with(route.as_str())
        });
        is_named
            || match config.custom_node_routes {
                CustomNodeRoutes::Allow => true,
                CustomNodeRoutes::Deny => false,
                CustomNodeRoutes::Auto => self.engines.holds_to_a_user(user),
            }
    }

    /// Ends the connections and tunnels of addresses that the lists do not let in any more.
    pub(crate) fn end_denied_connections(&self) {
        let live = self.live.load();
        self.connections.end_where(|address| {
            !live.trusted_proxies.contains(address) && !self.lists.judge_peer(address).lets_in()
        });
    }

    /// Ends at once what is signed in as disabled accounts, or by a password that is theirs no more,
    /// and cuts off what is signed in as accounts that are not there.
    pub(crate) async fn end_sessions_of_shut_out_accounts(&self) {
        let accounts = self.accounts.current();
        // A session without its account does not count, but its account may come back.
        self.sessions
            .suspend_where(|session| accounts.get(&session.user).is_none());
        let is_over = |session: &crate::auth::Session| {
            accounts
                .get(&session.user)
                .is_some_and(|account| account.disabled || !session.is_bound_to(account))
        };
        if let Err(error) = self.sessions.end_where(is_over).await {
            tracing::error!(error = %crate::http::chain(&error), "ended sessions could not be written down");
        }
        self.engines.look_again();
    }

    /// Where another device finds us: as this caller found us, unless he sits at the machine.
    pub(crate) fn url_for_others(&self, context: &RequestContext) -> String {
        let is_at_machine = context.caller.is_local || context.origins.host().host() == "localhost";
        let sharing = self.sharing.state();
        match sharing.urls().into_iter().next() {
            Some(url) if is_at_machine => url,
            None if is_at_machine => sharing.local_url(),
            _ => context.origins.url(Site::Management),
        }
    }

    /// Says that jobs wait for accounts that the account file does not hold, if there are such jobs.
    pub(crate) fn strangers_warning(&self) -> Option<String> {
        let jobs = self.jobs.strangers_jobs();
        (jobs > 0).then(|| {
            format!(
                "{jobs} waiting jobs belong to accounts that {} does not hold. They run when it holds \
                 these accounts again. To delete an account with its jobs, use Sentinel.",
                self.accounts.path().display()
            )
        })
    }

    /// Warnings for the admin: weak settings, damaged files.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let config = self.config.current();
        let mut warnings = config.warnings();
        warnings.extend(sandbox::config_warning(config.sandbox));
        warnings.extend(self.accounts.fault());
        warnings.extend(self.strangers_warning());
        warnings.extend(self.store.warning().map(str::to_owned));
        warnings.extend(self.lists.faults());
        warnings.extend(self.sharing.state().fault);
        warnings
    }
}
