package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go-gcpkms/v2/integration/gcpkms"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
	"google.golang.org/api/option"
)

// Key seals what is stored: authenticated encryption that binds a ciphertext to its associated data. It is safe for
// concurrent use.
type Key = tink.AEADWithContext

const (
	kmsScheme  = "gcp-kms://"
	fileScheme = "file:"
)

// OpenKey opens the key that a URI names:
//
//	gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K   a symmetric key in Cloud KMS
//	file:PATH                                                  a key on this machine, made if there is none
//
// Either only encrypts data keys, of which each ciphertext has its own (AES-256-GCM); what is sealed never travels to
// Cloud KMS. A file suits one machine alone: whoever can read it can open everything. It is readable for its owner
// only, and refused if it is for others too.
//
// The options are for the connection to Cloud KMS. ctx is for opening alone.
func OpenKey(ctx context.Context, uri string, opts ...option.ClientOption) (Key, error) {
	var kek tink.AEADWithContext
	var err error
	switch {
	case strings.HasPrefix(uri, kmsScheme):
		kek, err = gcpkms.GetAEADWithContext(context.WithoutCancel(ctx), uri,
			gcpkms.WithTransport(gcpkms.TransportGRPC), gcpkms.WithGoogleAPIClientOptions(opts...))
	case strings.HasPrefix(uri, fileScheme) && len(uri) > len(fileScheme):
		kek, err = fileKey(strings.TrimPrefix(uri, fileScheme))
	default:
		return nil, fmt.Errorf("open the key of the credentials: %q begins neither with %s nor with %s", uri, kmsScheme, fileScheme)
	}
	if err != nil {
		return nil, fmt.Errorf("open the key of the credentials: %w", err)
	}
	return aead.NewKMSEnvelopeAEADWithContext(aead.AES256GCMKeyTemplate(), kek)
}

// fileKey reads a keyset, having made it if there is none. Several processes may do so at once: all get the same.
func fileKey(path string) (tink.AEADWithContext, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKeyFile(path); err != nil {
			return nil, err
		}
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if others := info.Mode().Perm() & 0o077; others != 0 {
		return nil, fmt.Errorf("%s is open to others than its owner (%s): chmod 600", path, info.Mode().Perm())
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	if err != nil {
		// the cause may quote the file
		return nil, fmt.Errorf("%s holds no keyset", path)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return local{primitive}, nil
}

// makeKeyFile makes a keyset in a file of its own and then gives it its name, so that nobody reads half of one, and
// of several that are made at once only the first gets the name.
func makeKeyFile(path string) (err error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // made with 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	err = insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(f))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write a key: %w", err)
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// local gives a key of this process the form of a remote one.
type local struct{ aead tink.AEAD }

func (l local) EncryptWithContext(_ context.Context, plaintext, associated []byte) ([]byte, error) {
	return l.aead.Encrypt(plaintext, associated)
}

func (l local) DecryptWithContext(_ context.Context, ciphertext, associated []byte) ([]byte, error) {
	return l.aead.Decrypt(ciphertext, associated)
}
