package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tug/errs"
	"tug/spec"
)

// statusError is an answer that is not the wanted one: the status, and the
// first of the registry's own error codes (distribution-spec, "Error Codes").
type statusError struct {
	what       string // ping, token, manifest, blob ...
	status     int
	code       string // MANIFEST_UNKNOWN and so on; may be empty
	msg        string // the registry's words, one line; may be empty
	retryAfter time.Duration
}

func (e *statusError) Error() string {
	if e.code == "" && e.msg == "" {
		return "received unexpected HTTP status: " + statusText(e.status)
	}
	return codeText(e.code) + ": " + e.msg
}

func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// codeText spells a registry's error code as Docker does.
func codeText(code string) string {
	switch code {
	case "":
		return "error from registry"
	case "TOOMANYREQUESTS":
		return "toomanyrequests"
	}
	return strings.ReplaceAll(strings.ToLower(code), "_", " ")
}

// readStatus makes resp, which is no success, an error.
func readStatus(resp *http.Response, what string) error {
	e := &statusError{what: what, status: resp.StatusCode, retryAfter: retryAfter(resp)}
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		// Of token servers: Docker Hub's, OAuth2's.
		Details     string `json:"details"`
		Description string `json:"error_description"`
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(b, &body) != nil {
		return e
	}
	switch said := cmp.Or(body.Details, body.Description); {
	case len(body.Errors) > 0:
		e.code, e.msg = oneLine(body.Errors[0].Code), oneLine(body.Errors[0].Message)
	case what == "token" && said != "":
		e.code, e.msg = "UNAUTHORIZED", oneLine(said)
	}
	return e
}

// oneLine makes a server's words safe to print: one line, no control
// characters, not long.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + "..."
	}
	return strings.TrimSpace(s)
}

// failure turns what went wrong with ref into a classed error in Docker's
// words. cred says whether credentials were sent.
func failure(ref spec.Reference, cred bool, err error) error {
	var classed *errs.Error
	var s *statusError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		// Before classed: where TLS was refused, the guard's refusal to go on
		// without is in the chain too, and says less.
		return networkFailure(ref.Familiar(), ref.Domain, err)
	case errors.As(err, &classed):
		return classed
	case errors.As(err, &s):
		return statusFailure(ref, cred, s)
	}
	return networkFailure(ref.Familiar(), ref.Domain, err)
}

// denied reports whether the registry wants other credentials, or none at all
// would do.
func (e *statusError) denied() bool {
	return e.status == http.StatusUnauthorized || e.status == http.StatusForbidden || e.code == "UNAUTHORIZED" || e.code == "DENIED"
}

func statusFailure(ref spec.Reference, cred bool, s *statusError) error {
	denied := s.denied()
	detail := s.Error()
	if s.code == "" && s.msg == "" && denied {
		detail = "unauthorized: authentication required"
	}
	switch {
	case denied && cred:
		return errs.New(errs.Denied, "pull access denied for %s: the registry refused the credentials: %s", ref.FamiliarName(), detail).
			WithHint("renew the credentials with: tug login %s", ref.Domain)
	case denied:
		return errs.New(errs.Denied, "pull access denied for %s, repository does not exist or may require 'docker login': %s", ref.FamiliarName(), detail).
			WithHint("check the name; for a private repository log in with: tug login %s", ref.Domain)
	case s.code == "NAME_UNKNOWN":
		return errs.New(errs.NotFound, "repository %s not found: %s", ref.FamiliarName(), detail).WithHint("check the name")
	case s.what == "manifest" && (s.status == http.StatusNotFound || s.code == "MANIFEST_UNKNOWN"):
		if s.code == "" {
			detail = "manifest unknown"
		}
		return errs.New(errs.NotFound, "manifest for %s not found: %s", ref.Familiar(), detail).WithHint("check the tag or digest")
	case s.what == "blob" && s.status == http.StatusNotFound:
		return errs.New(errs.NotFound, "%s: a blob of the image is missing in the registry: %s", ref.Familiar(), detail).
			WithHint("push the image again")
	case s.what == "ping" && s.status == http.StatusNotFound:
		return errs.New(errs.Unavailable, "%s does not answer as a registry: %s", ref.Domain, detail).WithHint("check the registry's name and port")
	case s.status == http.StatusTooManyRequests || s.code == "TOOMANYREQUESTS":
		wait := ""
		if s.retryAfter > 0 {
			wait = " " + s.retryAfter.Round(time.Second).String()
		}
		return errs.New(errs.Unavailable, "%s: %s", ref.Familiar(), detail).WithHint("wait%s, or log in for a higher limit", wait)
	}
	return errs.New(errs.Unavailable, "%s: %s", ref.Familiar(), detail).WithHint("try again later; %s has a problem", ref.Domain)
}

// networkFailure is for connections that failed. Of the two that a loopback
// registry gets, with TLS and without, the one that says more is told. what is what was wanted
// of host.
func networkFailure(what, host string, err error) error {
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var u *url.Error
	switch {
	case errors.As(err, &dns):
		return errs.New(errs.Unavailable, "%s: lookup %s: %s", what, dns.Name, dns.Err).
			WithHint("check the registry's name and this machine's DNS")
	case errors.As(err, &cert):
		file, _ := RegistriesFile()
		return errs.New(errs.Denied, "%s: %s", what, oneLine(cert.Error())).
			WithHint("name the registry's certificate authority (ca) in %s, or add it to the system's", file)
	case errors.Is(err, syscall.ECONNREFUSED) && errors.As(err, &op):
		return errs.New(errs.Unavailable, "%s: %s: connection refused", what, dialText(op)).
			WithHint("check that a registry listens there")
	case errors.Is(err, errSilence), errors.Is(err, errSlow), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return errs.New(errs.Unavailable, "%s: %s does not answer: %s", what, host, oneLine(err.Error())).
			WithHint("try again, and check the connection to %s", host)
	case errors.As(err, &op) && op.Op == "dial":
		return errs.New(errs.Unavailable, "%s: %s: %s", what, dialText(op), oneLine(op.Err.Error())).
			WithHint("check the connection to %s", host)
	case errors.As(err, &u) && !isLoopback(host):
		return errs.New(errs.Unavailable, "%s: %s", what, oneLine(u.Error())).WithHint("check the connection to %s", host)
	}
	return errs.New(errs.Unavailable, "%s: %s", what, oneLine(err.Error())).WithHint("check the connection to %s", host)
}

func dialText(op *net.OpError) string {
	if op.Addr == nil {
		return op.Op + " " + op.Net
	}
	return op.Op + " " + op.Net + " " + op.Addr.String()
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
