package box

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// ip shows interfaces, addresses, routes and neighbours; it changes nothing.
func ip(c *call) int {
	args := c.args
	family := ""
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-4", "-6":
			family = args[0][1:]
		case "--help":
			c.help(c.flags())
			return 0
		case "-o", "-br":
		default:
			return c.misuse(fmt.Errorf("unknown option %s", args[0]))
		}
		args = args[1:]
	}
	what := "addr"
	if len(args) > 0 {
		what = args[0]
	}
	if len(args) > 1 && args[1] != "show" && args[1] != "list" && args[1] != "dev" {
		return c.misuse(fmt.Errorf("%s %s: only what there is can be shown", what, args[1]))
	}
	only := ""
	if len(args) > 1 && args[len(args)-1] != "show" && args[len(args)-1] != "list" {
		only = args[len(args)-1]
	}
	var err error
	switch {
	case strings.HasPrefix("address", what), strings.HasPrefix("link", what):
		err = c.interfaces(only, family, what[0] == 'a')
	case strings.HasPrefix("route", what):
		if family != "6" {
			err = c.routes4()
		}
		if family != "4" && err == nil {
			err = c.routes6()
		}
	case strings.HasPrefix("neighbour", what) || what == "neighbor":
		err = c.neighbours()
	default:
		return c.misuse(fmt.Errorf("unknown object %s", what))
	}
	if err != nil {
		c.fail(err)
	}
	return c.code
}

func (c *call) interfaces(only, family string, addresses bool) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	found := false
	for _, i := range all {
		if only != "" && i.Name != only {
			continue
		}
		found = true
		state, _ := os.ReadFile("/sys/class/net/" + i.Name + "/operstate")
		flags := strings.ToUpper(strings.ReplaceAll(i.Flags.String(), "|", ","))
		c.printf("%d: %s: <%s> mtu %d state %s\n", i.Index, c.shown(i.Name), flags, i.MTU, strings.ToUpper(orText(strings.TrimSpace(string(state)), "unknown")))
		kind, mac := "ether", i.HardwareAddr.String()
		if i.Flags&net.FlagLoopback != 0 {
			kind, mac = "loopback", orText(mac, "00:00:00:00:00:00")
		}
		if mac != "" {
			c.printf("    link/%s %s\n", kind, mac)
		}
		if !addresses {
			continue
		}
		list, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range list {
			word := "inet6"
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
				word = "inet"
			}
			if family == "" || (family == "4") == (word == "inet") {
				c.printf("    %s %s\n", word, a)
			}
		}
	}
	if only != "" && !found {
		return fmt.Errorf("there is no interface %s", only)
	}
	return nil
}

func orText(s, empty string) string {
	if s == "" {
		return empty
	}
	return s
}

// table of /proc/net: lines of words, without the heading.
func procTable(file string) ([][]string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // no IPv6
	}
	var out [][]string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 {
			out = append(out, f)
		}
	}
	return out, err
}

// address4 reads the kernel's little-endian hexadecimal.
func address4(s string) netip.Addr {
	n, _ := strconv.ParseUint(s, 16, 32)
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}

func (c *call) routes4() error {
	rows, err := procTable("/proc/net/route")
	for _, f := range rows {
		if len(f) < 8 || f[0] == "Iface" {
			continue
		}
		to, via, mask := address4(f[1]), address4(f[2]), address4(f[7])
		bits := 0
		for _, b := range mask.As4() {
			for ; b != 0; b <<= 1 {
				bits++
			}
		}
		text := fmt.Sprintf("%s/%d", to, bits)
		if bits == 0 {
			text = "default"
		}
		if !via.IsUnspecified() {
			text += " via " + via.String()
		}
		text += " dev " + f[0]
		if f[6] != "0" {
			text += " metric " + f[6]
		}
		c.printf("%s\n", c.shown(text))
	}
	return err
}

func (c *call) routes6() error {
	rows, err := procTable("/proc/net/ipv6_route")
	for _, f := range rows {
		if len(f) < 10 || f[9] == "lo" {
			continue
		}
		to, via := address6(f[0]), address6(f[4])
		bits, _ := strconv.ParseUint(f[1], 16, 8)
		text := fmt.Sprintf("%s/%d", to, bits)
		if bits == 0 {
			text = "default"
		}
		if !via.IsUnspecified() {
			text += " via " + via.String()
		}
		c.printf("%s dev %s\n", text, c.shown(f[9]))
	}
	return err
}

func address6(s string) netip.Addr {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 {
		return netip.IPv6Unspecified()
	}
	return netip.AddrFrom16([16]byte(b))
}

func (c *call) neighbours() error {
	rows, err := procTable("/proc/net/arp")
	for _, f := range rows {
		if len(f) >= 6 && f[0] != "IP" {
			c.printf("%s dev %s lladdr %s\n", f[0], c.shown(f[5]), f[3])
		}
	}
	return err
}

// sockets is ss and netstat: what listens and who talks.
func sockets(c *call) int {
	fs := c.flags()
	t, u, l := flag(fs, "t", "tcp", "TCP"), flag(fs, "u", "udp", "UDP"), flag(fs, "l", "listening", "only what waits")
	a := flag(fs, "a", "all", "also what waits")
	_, _ = flag(fs, "n", "numeric", "always so"), flag(fs, "p", "processes", "changes nothing")
	if _, code, ok := c.parse(fs, 0, 0); !ok {
		return code
	}
	if !*t && !*u {
		*t, *u = true, true
	}
	rows := [][]string{{"Proto", "State", "Local", "Peer"}}
	for _, k := range []struct {
		on   bool
		name string
	}{{*t, "tcp"}, {*t, "tcp6"}, {*u, "udp"}, {*u, "udp6"}} {
		if !k.on {
			continue
		}
		list, err := procTable("/proc/net/" + k.name)
		if err != nil {
			c.fail(err)
		}
		for _, f := range list {
			if len(f) < 4 || f[0] == "sl" {
				continue
			}
			state := socketState(f[3], strings.HasPrefix(k.name, "udp"))
			waits := state == "LISTEN" || state == "UNCONN"
			if *l && !waits || waits && !*l && !*a {
				continue
			}
			rows = append(rows, []string{k.name, state, socketAddress(f[1]), socketAddress(f[2])})
		}
	}
	c.table(rows, func(int) bool { return false })
	return c.code
}

func socketState(code string, udp bool) string {
	names := []string{"", "ESTAB", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "UNCONN", "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING"}
	n, err := strconv.ParseUint(code, 16, 8)
	if err != nil || int(n) >= len(names) {
		return code
	}
	return names[n]
}

// socketAddress is ADDRESS:PORT in the kernel's hexadecimal, four bytes at a
// time little-endian.
func socketAddress(s string) string {
	host, port, _ := strings.Cut(s, ":")
	n, _ := strconv.ParseUint(port, 16, 16)
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return s
	}
	for i := 0; i+4 <= len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return s
	}
	return netip.AddrPortFrom(addr, uint16(n)).String()
}
