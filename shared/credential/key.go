package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
	"google.golang.org/api/option"
	"google.golang.org/protobuf/types/known/wrapperspb"
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
		kek, err = cloudKey(context.WithoutCancel(ctx), strings.TrimPrefix(uri, kmsScheme), opts...)
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

// remote encrypts with a key in Cloud KMS. What is sent and what comes back is checked as Google advises
// (https://cloud.google.com/kms/docs/data-integrity-guidelines).
type remote struct {
	client *kms.KeyManagementClient
	name   string
}

func cloudKey(ctx context.Context, name string, opts ...option.ClientOption) (tink.AEADWithContext, error) {
	client, err := kms.NewKeyManagementClient(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Cloud KMS: %w", err)
	}
	return remote{client, name}, nil
}

// errCorrupt means that something was changed on its way to Cloud KMS or back.
var errCorrupt = errors.New("what came from Cloud KMS, or arrived there, is not what was sent")

func (r remote) EncryptWithContext(ctx context.Context, plaintext, associated []byte) ([]byte, error) {
	resp, err := r.client.Encrypt(ctx, &kmspb.EncryptRequest{
		Name: r.name, Plaintext: plaintext, PlaintextCrc32C: crc(plaintext),
		AdditionalAuthenticatedData: associated, AdditionalAuthenticatedDataCrc32C: crc(associated),
	})
	if err != nil {
		return nil, fmt.Errorf("encrypt with Cloud KMS: %w", err)
	}
	if !resp.VerifiedPlaintextCrc32C || !resp.VerifiedAdditionalAuthenticatedDataCrc32C || resp.CiphertextCrc32C.GetValue() != crc(resp.Ciphertext).Value {
		return nil, errCorrupt
	}
	return resp.Ciphertext, nil
}

func (r remote) DecryptWithContext(ctx context.Context, ciphertext, associated []byte) ([]byte, error) {
	resp, err := r.client.Decrypt(ctx, &kmspb.DecryptRequest{
		Name: r.name, Ciphertext: ciphertext, CiphertextCrc32C: crc(ciphertext),
		AdditionalAuthenticatedData: associated, AdditionalAuthenticatedDataCrc32C: crc(associated),
	})
	if err != nil {
		return nil, fmt.Errorf("decrypt with Cloud KMS: %w", err)
	}
	if resp.PlaintextCrc32C.GetValue() != crc(resp.Plaintext).Value {
		return nil, errCorrupt
	}
	return resp.Plaintext, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(data []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(data, castagnoli)))
}
