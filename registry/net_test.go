package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// testNet is an internet of a test's own: names and ports that lead to servers
// on loopback.
type testNet struct {
	t  *testing.T
	ca *x509.Certificate
	pk *ecdsa.PrivateKey

	mu    sync.Mutex
	hosts map[string]string // host:port -> address
}

func newNet(t *testing.T) *testNet {
	t.Helper()
	n := &testNet{t: t, hosts: map[string]string{}}
	n.pk, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &n.pk.PublicKey, n.pk)
	if err != nil {
		t.Fatal(err)
	}
	n.ca, _ = x509.ParseCertificate(der)
	return n
}

func (n *testNet) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(n.ca)
	return p
}

// certificate makes one for name, signed by the test's authority.
func (n *testNet) certificate(name string) tls.Certificate {
	n.t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, n.ca, &key.PublicKey, n.pk)
	if err != nil {
		n.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// files writes the authority, and a client certificate with its key.
func (n *testNet) files(dir string) (ca, cert, key string) {
	n.t.Helper()
	c := n.certificate("client")
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		n.t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			n.t.Fatal(err)
		}
		return p
	}
	return write("ca.crt", "CERTIFICATE", n.ca.Raw), write("me.cert", "CERTIFICATE", c.Certificate[0]), write("me.key", "PRIVATE KEY", der)
}

// tls starts a server for addr (host:port) and returns who vouches for it.
func (n *testNet) tls(addr string, h http.HandlerFunc) *x509.CertPool {
	n.tlsWith(addr, &tls.Config{}, h)
	return n.pool()
}

func (n *testNet) tlsWith(addr string, tc *tls.Config, h http.HandlerFunc) {
	n.t.Helper()
	host, _, _ := net.SplitHostPort(addr)
	tc.Certificates = []tls.Certificate{n.certificate(host)}
	s := httptest.NewUnstartedServer(h)
	s.TLS = tc
	s.StartTLS()
	n.add(addr, s)
}

// plain starts a server without TLS for addr.
func (n *testNet) plain(addr string, h http.HandlerFunc) {
	n.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Start()
	n.add(addr, s)
}

func (n *testNet) add(addr string, s *httptest.Server) {
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	n.t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[addr] = s.Listener.Addr().String()
}

func (n *testNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	to := n.hosts[addr]
	n.mu.Unlock()
	if host, _, _ := net.SplitHostPort(addr); to == "" && host == "127.0.0.1" {
		to = addr
	}
	if to == "" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Name: addr, Err: "no such host", IsNotFound: true}}
	}
	var d net.Dialer
	return d.DialContext(ctx, network, to)
}

// client returns a Client that lives in n.
func (n *testNet) client(o Options) *Client {
	o.dial = n.dial
	return testClient(o)
}

// registries writes a registries file and makes it the one to use.
func registries(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "registries.toml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TUG_REGISTRIES", p)
	return p
}
