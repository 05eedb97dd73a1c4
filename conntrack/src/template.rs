//! Persistence templates: which destination the connections of a client's network get.
//!
//! ```text
//!  template     (network, 0) → (VIP, port or 0) → destination      in table, index and wheel
//!      ▲ control: how many connections it has
//!      │
//!  connection   control: the template's line                       any number of them
//! ```
//!
//! A template is a line like any other, so that it is found, timed out and listed like one, but in
//! place of an IP protocol it has a number that no packet has: whatever port a client writes into
//! its packets, no packet finds a template. It outlives its connections: while it has any, it is
//! armed again for a minute when its time is over, and nothing else ends it. So a connection may
//! keep the number of its template's line.
//!
//! One whose destination may not be used any more becomes *void*: it leaves the index, so that
//! another takes its place, and stays where it is until its connections and its time are over.
//! Linux 6.1 `ip_vs_conn.c` `ip_vs_check_template()`, `ip_vs_conn_expire()`, `ip_vs_control_add()`.

use crate::conn::{Conn, flag};
use crate::conns::Conns;
use rvs_model::{State, Tick, ticks};
use rvs_wire::flow::{Ends, Family, Key, protocol};

/// The first of the numbers that templates have in place of a protocol; a multiple of 8. IANA has
/// assigned none from 148 to 252.
const FIRST: u8 = 0xe0;
/// Set in the number of a template that is void.
const VOID: u8 = 4;
/// What templates are about, by their number. 0, the kernel's `IPPROTO_IP`: any protocol.
const PROTOCOLS: [u8; 4] = [0, protocol::TCP, protocol::UDP, protocol::SCTP];

/// What a void template has for ports.
const VOID_PORT: u16 = 0xffff;

/// How long a template, or a control connection of FTP, lives on that still has connections when its
/// time is over (Linux 6.1 `ip_vs_conn.c` `ip_vs_conn_expire()`).
pub(crate) const IN_USE: Tick = ticks(60);

/// Set in [`Conn::control`] once the template knows that this connection was established.
pub(crate) const TOLD: u32 = 1 << 31;

/// What stands in a template's key for the IP protocol `protocol`, 0 for any; `None` if no service
/// has it.
#[must_use]
pub fn number(protocol: u8) -> Option<u8> {
    (FIRST..).zip(PROTOCOLS).find(|(_, known)| *known == protocol).map(|(number, _)| number)
}

impl<F: Family> Conn<F> {
    /// A template for `key`, whose protocol is a [`number`], that lasts for `timeout` after its last
    /// use.
    #[must_use]
    pub fn template(key: Key<F>, dest: (F::Addr, u16), timeout: Tick) -> Self {
        let outbound = <F::Ends as Ends>::new(dest, key.ends.source());
        Self {
            inbound: key.ends,
            outbound,
            protocol: key.protocol,
            packets: timeout.min(crate::wheel::TIMEOUT_MAX),
            ..Self::default()
        }
    }

    /// Whether this is a template.
    #[inline]
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.protocol & !(VOID | 3) == FIRST
    }

    /// The IP protocol that a template is about; 0 is any.
    #[must_use]
    pub fn template_protocol(&self) -> u8 {
        PROTOCOLS.get(usize::from(self.protocol & 3)).copied().unwrap_or_default()
    }

    /// Whether this is in the index.
    #[inline]
    pub(crate) fn is_found(&self) -> bool {
        self.protocol & !3 != FIRST | VOID
    }

    /// The line of this connection's template; 0 is none.
    #[inline]
    #[must_use]
    pub fn template_line(&self) -> u32 {
        if self.is_template() || self.has(flag::DATA) { 0 } else { self.control & !TOLD }
    }

    /// How long a template outlives its last use.
    #[inline]
    pub(crate) fn template_timeout(&self) -> Tick {
        self.packets
    }
}

/// Whether nobody would miss this template.
fn is_idle<F: Family>(template: &Conn<F>) -> bool {
    template.control == 0 && template.state == State::None
}

impl<F: Family> Conns<F> {
    /// The template of `key`, and its line.
    #[must_use]
    pub fn template(&self, key: &Key<F>) -> Option<(u32, &Conn<F>)> {
        let found = self.table().find(key, self.table().hash(key))?;
        Some((found.index, self.table().conn(found.index)?))
    }

    /// A new connection uses the template at `index`: its time starts again.
    pub fn renew_template(&mut self, index: u32, now: Tick) {
        if let Some(template) = self.conn_mut(index) {
            template.seen = now;
        }
    }

    /// From now on nobody finds the template at `index`.
    pub fn void_template(&mut self, index: u32) {
        let Some(template) = self.table().conn(index).copied() else { return };
        if !template.is_template() || !template.is_found() {
            return;
        }
        self.hide(index);
        let ((network, _), (vip, _)) = (template.inbound.source(), template.inbound.destination());
        let (dest, client) = (template.outbound.source().0, template.outbound.destination());
        if let Some(template) = self.conn_mut(index) {
            template.protocol |= VOID;
            template.inbound = <F::Ends as Ends>::new((network, 0), (vip, VOID_PORT));
            template.outbound = <F::Ends as Ends>::new((dest, VOID_PORT), client);
        }
    }

    /// A connection begins to use its template.
    #[inline]
    pub(crate) fn hold_template(&mut self, conn: &Conn<F>) {
        if let Some(template) = self.template_of(conn) {
            template.control += 1;
        }
    }

    /// A connection is gone that used its template.
    #[inline]
    pub(crate) fn release_template(&mut self, conn: &Conn<F>) {
        let Some(template) = self.template_of(conn) else { return };
        template.control -= 1;
        if is_idle(template) {
            self.note_half_open(conn.template_line());
        }
    }

    #[inline]
    fn template_of(&mut self, conn: &Conn<F>) -> Option<&mut Conn<F>> {
        let line = conn.template_line();
        if line == 0 {
            return None;
        }
        self.conn_mut(line).filter(|template| template.is_template())
    }

    /// Templates learn which of them had a connection that was established.
    #[cold]
    pub(crate) fn assure_templates(&mut self) {
        while let Some(line) = self.next_assured() {
            if let Some(template) = self.conn_mut(line).filter(|it| it.is_template()) {
                template.state = State::Established;
            }
        }
    }

    /// Ends a connection before its time, and its template with it if none of that one's connections
    /// is left or was ever established; shows both to `gone`. A template that has connections stays.
    ///
    /// Linux 6.1 `ip_vs_conn.c` `ip_vs_conn_del()` and what `ip_vs_conn_expire()` does then.
    pub fn end(&mut self, index: u32, mut gone: impl FnMut(&Conn<F>)) {
        let Some(conn) = self.remove(index) else { return };
        gone(&conn);
        self.end_idle_template(&conn, gone);
    }

    /// The second half of [`Conns::end`], of a connection that is gone.
    pub(crate) fn end_idle_template(&mut self, conn: &Conn<F>, mut gone: impl FnMut(&Conn<F>)) {
        if self.template_of(conn).is_some_and(|template| is_idle(template))
            && let Some(template) = self.remove(conn.template_line())
        {
            gone(&template);
        }
    }

    /// Whether the template `conn`, whose time is over, lives on because it has connections; it is
    /// given another minute then.
    pub(crate) fn prolong_template(conn: &mut Conn<F>, now: Tick) -> bool {
        let prolongs = conn.is_template() && conn.control > 0;
        if prolongs {
            // It stays a minute from now on: the kernel overwrites the timeout, too.
            conn.packets = IN_USE;
            conn.seen = now;
        }
        prolongs
    }
}
