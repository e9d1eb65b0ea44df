// Package spec is tug's vocabulary: digests, references, platforms, image and
// container descriptions. Its types are values, its functions are pure, and it
// does no I/O. JSON shapes follow the OCI image specification v1.1 and Docker's
// image and container JSON; a field is here because some code acts on it.
package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"tug/errs"
)

// Digest names bytes by their SHA-256, as "sha256:" and 64 lower-case hex
// digits (OCI image-spec v1.1, descriptor.md, "Digests"). The empty Digest
// names nothing. Only ParseDigest and the functions that hash make a valid one.
type Digest string

const digestPrefix = "sha256:"

// ParseDigest checks s. Algorithms other than sha256 are Unsupported, anything
// else that is no digest is Invalid.
func ParseDigest(s string) (Digest, error) {
	alg, hexa, ok := strings.Cut(s, ":")
	if !ok {
		return "", errs.New(errs.Invalid, "invalid digest %q: no algorithm", s)
	}
	if alg != "sha256" {
		return "", errs.New(errs.Unsupported, "unsupported digest algorithm in %q: only sha256 is known", s)
	}
	if !IsHex64(hexa) {
		return "", errs.New(errs.Invalid, "invalid digest %q: want 64 lower-case hex digits", s)
	}
	return Digest(s), nil
}

// IsHex64 reports whether s is 64 lower-case hex digits.
func IsHex64(s string) bool { return len(s) == 64 && IsHex(s) }

// IsHex reports whether s consists of lower-case hex digits only.
func IsHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(digestPrefix + hex.EncodeToString(sum[:]))
}

// DigestSum returns the Digest of a finished SHA-256 sum (32 bytes).
func DigestSum(sum []byte) Digest { return Digest(digestPrefix + hex.EncodeToString(sum)) }

// Hex returns the 64 hex digits.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// Short returns the first 12 hex digits, as Docker shows ids.
func (d Digest) Short() string {
	h := d.Hex()
	return h[:min(12, len(h))]
}

func (d Digest) String() string { return string(d) }
