"""The text of both tables around the sites: what may pass, from where to where.

Pure; :mod:`alveole.host.firewall` says what the sets are for, and keeps them.
"""

from __future__ import annotations

from ipaddress import ip_address

from alveole.config import Settings
from alveole.host.network import group_of

#: Never reached from a site: IANA's special-purpose registry (RFC 6890), multicast, and 168.63.129.16, where
#: Azure keeps its metadata. The other clouds' addresses are link-local, shared or unique-local ones.
CLOSED4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
)
#: Inside the global unicast space 2000::/3, the only IPv6 space reached: protocol assignments with Teredo, and 6to4.
CLOSED6 = ("2001::/23", "2002::/16")
#: Sets that the kernel fills by itself.
COUNTERS = ("going4", "going6", "coming4", "coming6", "client4", "client6")
#: Addresses that are counted at a time: two of each instance, far more than there can be.
_COUNTED = 65_535
#: One client has so small a part of what a site's published ports may have; of IPv6 the network of /64 is one client.
_CLIENTS_PART = 8


def _resolvers(settings: Settings) -> str:
    """Rules that open port 53 of the name servers named in the settings, which may be private."""
    lines = []
    for family, name in (("ip", "out4"), ("ip6", "out6")):
        version = 4 if family == "ip" else 6
        found = [a for text in settings.network.resolvers if (a := ip_address(text)).version == version]
        if found:
            servers = ", ".join(str(address) for address in found)
            rule = (
                f"{family} saddr @{name} {family} daddr {{ {servers} }} meta l4proto {{ tcp, udp }} th dport 53 accept"
            )
            lines.append(f"\t\t{rule}\n")
    return "".join(lines)


def render(settings: Settings) -> str:
    """Both tables with empty sets, for ``nft -f``. Pure."""
    plan = settings.addressing()
    names = settings.network
    group = group_of(names.bridge)
    closed4, closed6 = ", ".join(CLOSED4), ", ".join(CLOSED6)
    errors4 = "echo-reply, destination-unreachable, time-exceeded, parameter-problem"
    errors6 = "echo-reply, destination-unreachable, packet-too-big, time-exceeded, parameter-problem"
    most = names.connections
    client = max(1, most // _CLIENTS_PART)
    discovery = "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect"
    return f"""\
table inet {names.table} {{
	set out4 {{
		type ipv4_addr
	}}

	set out6 {{
		type ipv6_addr
	}}

	set open4 {{
		type ipv4_addr . inet_proto . inet_service
	}}

	set open6 {{
		type ipv6_addr . inet_proto . inet_service
	}}

	set going4 {{
		type ipv4_addr
		size {_COUNTED}
		flags dynamic
	}}

	set going6 {{
		type ipv6_addr
		size {_COUNTED}
		flags dynamic
	}}

	set coming4 {{
		type ipv4_addr
		size {_COUNTED}
		flags dynamic
	}}

	set coming6 {{
		type ipv6_addr
		size {_COUNTED}
		flags dynamic
	}}

	set client4 {{
		type ipv4_addr . ipv4_addr
		size {_COUNTED}
		flags dynamic
	}}

	set client6 {{
		type ipv6_addr . ipv6_addr
		size {_COUNTED}
		flags dynamic
	}}

	map publish4 {{
		type inet_proto . inet_service : ipv4_addr . inet_service
	}}

	map publish6 {{
		type inet_proto . inet_service : ipv6_addr . inet_service
	}}

	chain raw_output {{
		type filter hook output priority raw; policy accept;
		oifname "{names.bridge}" notrack
	}}

	chain raw_prerouting {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{names.bridge}" ip saddr . meta l4proto . th sport @open4 ip daddr {plan.gateway4} accept
		iifname "{names.bridge}" ip6 saddr . meta l4proto . th sport @open6 ip6 daddr {plan.gateway6} accept
		iifname "{names.bridge}" fib daddr type local notrack
	}}

	chain published {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname != "{names.bridge}" meta l4proto {{ tcp, udp }} fib daddr type local goto publish
	}}

	chain published_here {{
		type nat hook output priority -100; policy accept;
		meta l4proto {{ tcp, udp }} fib daddr type local ip daddr != 127.0.0.0/8 goto publish
		meta l4proto {{ tcp, udp }} fib daddr type local ip6 daddr != ::1 goto publish
	}}

	chain publish {{
		dnat ip to meta l4proto . th dport map @publish4
		dnat ip6 to meta l4proto . th dport map @publish6
	}}

	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "{names.bridge}" goto site_to_host
	}}

	chain site_to_host {{
		ct direction reply ct status dnat accept
		ip daddr {plan.gateway4} tcp flags & (ack | rst) != 0 accept
		ip daddr {plan.gateway4} icmp type {{ {errors4} }} accept
		ip6 daddr {plan.gateway6} tcp flags & (ack | rst) != 0 accept
		ip6 daddr {plan.gateway6} icmpv6 type {{ {errors6} }} accept
		drop
	}}

	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{names.bridge}" goto from_site
		oifname "{names.bridge}" goto to_site
	}}

	chain from_site {{
		ct state invalid drop
		oifname "{names.bridge}" goto refuse
		ct direction reply ct status dnat accept
		ct state new jump going
{_resolvers(settings)}		ip saddr @out4 ip daddr != {plan.network4} ip daddr != {{ {closed4} }} accept
		ip6 saddr @out6 ip6 daddr 2000::/3 ip6 daddr != {plan.network6} ip6 daddr != {{ {closed6} }} accept
		goto refuse
	}}

	chain going {{
		ip saddr @out4 add @going4 {{ ip saddr ct count over {most} }} goto refuse
		ip6 saddr @out6 add @going6 {{ ip6 saddr ct count over {most} }} goto refuse
	}}

	chain refuse {{
		meta l4proto tcp reject with tcp reset
		reject with icmpx admin-prohibited
	}}

	chain to_site {{
		ct status dnat goto to_published
		ct state established,related accept
		drop
	}}

	chain to_published {{
		ct state related accept
		ct state new jump coming
		ip daddr . meta l4proto . th dport @open4 accept
		ip6 daddr . meta l4proto . th dport @open6 accept
		drop
	}}

	chain coming {{
		add @client4 {{ ip saddr . ip daddr ct count over {client} }} drop
		add @client6 {{ ip6 saddr & ffff:ffff:ffff:ffff:: . ip6 daddr ct count over {client} }} drop
		add @coming4 {{ ip daddr ct count over {most} }} drop
		add @coming6 {{ ip6 daddr ct count over {most} }} drop
	}}

	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {plan.network4} oifname != "{names.bridge}" masquerade
		ip6 saddr {plan.network6} oifname != "{names.bridge}" masquerade
		oifname "{names.bridge}" ct status dnat masquerade
	}}
}}
table bridge {names.table} {{
	set from4 {{
		type ifname . ether_addr . ipv4_addr
	}}

	set from6 {{
		type ifname . ether_addr . ipv6_addr
	}}

	chain prerouting {{
		type filter hook prerouting priority -310; policy accept;
		iifgroup {{ {group}, {group + 1} }} goto site
	}}

	chain site {{
		iifname . ether saddr . ip saddr @from4 accept
		icmpv6 type {{ {discovery} }} drop
		iifname . ether saddr . ip6 saddr @from6 accept
		drop
	}}

	chain forward {{
		type filter hook forward priority -310; policy accept;
		iifgroup {{ {group}, {group + 1} }} drop
		oifgroup {{ {group}, {group + 1} }} drop
	}}

	chain output {{
		type filter hook output priority -310; policy accept;
		oifgroup {{ {group}, {group + 1} }} ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 drop
	}}
}}
"""
