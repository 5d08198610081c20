//! Every kind of fault: where it strikes, how long it lasts, and in which runs.

use std::time::Duration;

/// Faults of one lane follow each other; those of different lanes overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The process, its disk and its clock.
    Service,
    /// The broker and the network to it.
    Broker,
    /// The API and the network to it.
    Api,
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::Service, Self::Broker, Self::Api];
}

macro_rules! faults {
    ($($lane:ident { $($(#[doc = $doc:literal])+ $fault:ident $name:literal $least:literal..$most:literal $run:literal;)+ })+) => {
        /// What is done to the system.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Fault { $($($(#[doc = $doc])+ $fault),+),+ }

        impl Fault {
            pub(crate) const ALL: &[Self] = &[$($(Self::$fault),+),+];

            pub(crate) const fn lane(self) -> Lane {
                match self { $($(Self::$fault => Lane::$lane),+),+ }
            }

            pub(crate) const fn name(self) -> &'static str {
                match self { $($(Self::$fault => $name),+),+ }
            }

            /// How long it lasts, in milliseconds: from, to.
            pub(crate) const fn lasts_ms(self) -> (u64, u64) {
                match self { $($(Self::$fault => ($least, $most)),+),+ }
            }

            /// The shortest run, in seconds, that it has a place in.
            const fn least_run_s(self) -> u64 {
                match self { $($(Self::$fault => $run),+),+ }
            }
        }
    };
}

faults! {
    Service {
        /// SIGKILL; started again at once.
        Killed "killed" 0..1 0;
        /// SIGKILL, and again before or soon after the new process has started.
        KilledTwice "killed-twice" 20..900 0;
        /// SIGKILL, and down for a while.
        Down "down" 500..5000 0;
        /// SIGTERM in the middle of the work.
        Terminated "terminated" 500..3500 0;
        /// Restarted with one of the crash points armed; killed if it does not pass it.
        CrashPoint "crash-point" 4000..4001 0;
        /// SIGSTOP, then SIGCONT.
        Paused "paused" 200..4000 0;
        /// The same for longer than a lease.
        PausedBeyondLease "paused-beyond-lease" 33000..40000 240;
        /// Not a byte is free on the store's disk.
        DiskFull "disk-full" 2000..7000 0;
        /// The wall clock is set some seconds forth or back.
        ClockStep "clock-step" 0..1 0;
        /// The wall clock is set further than a lease lasts.
        ClockLeap "clock-leap" 9000..9001 240;
    }
    Broker {
        /// Stopped and started.
        BrokerStopped "broker-stopped" 200..4000 0;
        /// Killed and started.
        BrokerKilled "broker-killed" 200..3000 0;
        /// The source's queue is deleted; what was in it is told again.
        QueueDeleted "queue-deleted" 0..1 0;
        /// No queue is bound for what is announced.
        Unbound "unbound" 500..4000 0;
        /// Connections are reset.
        BrokerCut "broker-cut" 0..1 0;
        /// Connections move no byte.
        BrokerStalled "broker-stalled" 500..9000 0;
        /// The service's bytes arrive at the broker, the broker's don't arrive.
        BrokerMuted "broker-muted" 500..9000 0;
        /// The same until heartbeats notice.
        BrokerMutedLong "broker-muted-long" 100_000..200_000 900;
        /// Connections are reset as soon as they are made.
        BrokerRefuses "broker-refuses" 500..4000 0;
        /// `connection.blocked`.
        MemoryAlarm "memory-alarm" 500..4000 0;
    }
    Api {
        /// Slower than the call's timeout, sometimes.
        Slow "slow" 2000..6000 0;
        /// 429 without `Retry-After`.
        Throttled "throttled" 1500..5000 0;
        /// 429 and 503 with `Retry-After`, in seconds or as a date.
        ThrottledPolitely "throttled-politely" 1500..5000 0;
        /// The documented limit, lower than the service's pace.
        Limited "limited" 2000..6000 0;
        /// 500 without an effect.
        ErrorsBefore "errors-before" 1500..4000 0;
        /// 500 after the effect.
        ErrorsAfter "errors-after" 1500..4000 0;
        /// The effect, and no reply.
        RepliesLost "replies-lost" 1500..4000 0;
        /// No reply, and the effect some seconds later.
        LateEffects "late-effects" 1500..5000 0;
        /// Bodies that are cut, dripping, garbage, too large or without a code.
        OddBodies "odd-bodies" 1500..4000 0;
        /// 401 and 403 now and then.
        Forbidden "forbidden" 1000..2500 0;
        /// Redirects.
        Redirects "redirects" 1000..2500 0;
        /// New truckers are 404 for a while.
        Absent "absent" 2000..5000 0;
        /// A bit of everything, GETs too.
        Mixed "mixed" 3000..8000 0;
        /// Connections are reset.
        ApiCut "api-cut" 0..1 0;
        /// Connections move no byte.
        ApiStalled "api-stalled" 500..5000 0;
        /// Requests arrive, replies don't.
        ApiMuted "api-muted" 500..5000 0;
        /// Nobody listens.
        ApiClosed "api-closed" 500..5000 0;
        /// The token is refused for a while.
        TokenRefused "token-refused" 1000..4000 0;
        /// Another token becomes valid; its file follows later.
        TokenRotated "token-rotated" 500..4000 0;
    }
}

impl Fault {
    /// Those of a lane that fit into a run of this length.
    pub(crate) fn of(lane: Lane, run: Duration) -> Vec<Self> {
        let fits = |fault: &Self| fault.lane() == lane && fault.least_run_s() <= run.as_secs();
        Self::ALL.iter().copied().filter(fits).collect()
    }

    /// What carrying it out takes beside its own time: starting a broker, running a command of it.
    pub(crate) const fn overhead(self) -> Duration {
        Duration::from_millis(match self {
            Self::BrokerStopped | Self::BrokerKilled | Self::MemoryAlarm => 5000,
            Self::QueueDeleted => 500,
            _ => 0,
        })
    }
}
