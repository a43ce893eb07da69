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

// Key is authenticated encryption: a ciphertext is bound to its associated data. It is safe for concurrent use.
type Key = tink.AEADWithContext

const (
	kmsScheme  = "gcp-kms://"
	fileScheme = "file:"
)

// OpenKey opens the key with this URI:
//
//	gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K   a symmetric key in Cloud KMS
//	file:PATH                                                  a key on this machine, created if absent
//
// Both kinds only encrypt data keys. Each ciphertext has its own data key (AES-256-GCM), so tokens never travel to Cloud
// KMS. A file is for one machine: every reader of the file can decrypt everything. The file is readable for its owner
// only; OpenKey refuses a file with wider permissions.
//
// The options are for the connection to Cloud KMS. ctx bounds opening, not the use of the key.
func OpenKey(ctx context.Context, uri string, opts ...option.ClientOption) (Key, error) {
	var kek tink.AEADWithContext
	var err error
	switch {
	case strings.HasPrefix(uri, kmsScheme):
		kek, err = cloudKey(context.WithoutCancel(ctx), strings.TrimPrefix(uri, kmsScheme), opts...)
	case strings.HasPrefix(uri, fileScheme) && len(uri) > len(fileScheme):
		kek, err = fileKey(strings.TrimPrefix(uri, fileScheme))
	default:
		return nil, fmt.Errorf("open the credentials' key: %q begins neither with %s nor with %s", uri, kmsScheme, fileScheme)
	}
	if err != nil {
		return nil, fmt.Errorf("open the credentials' key: %w", err)
	}
	return aead.NewKMSEnvelopeAEADWithContext(aead.AES256GCMKeyTemplate(), kek)
}

// fileKey reads a keyset, and creates the file if absent. Concurrent processes get the same keyset.
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
		return nil, fmt.Errorf("%s is accessible to users besides its owner (%s): chmod 600", path, info.Mode().Perm())
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

// makeKeyFile writes a keyset to a temporary file and then links the file to its name. So no process reads half a
// keyset, and only the first of several concurrent keysets gets the name.
func makeKeyFile(path string) (err error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // with mode 0600
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

// local adapts a key in this process to the interface of a remote key.
type local struct{ aead tink.AEAD }

func (l local) EncryptWithContext(_ context.Context, plaintext, associated []byte) ([]byte, error) {
	return l.aead.Encrypt(plaintext, associated)
}

func (l local) DecryptWithContext(_ context.Context, ciphertext, associated []byte) ([]byte, error) {
	return l.aead.Decrypt(ciphertext, associated)
}

// remote encrypts with a key in Cloud KMS. Checksums protect requests and answers, as Google advises
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

// errCorrupt means that a request or an answer of Cloud KMS was changed on the way.
var errCorrupt = errors.New("the checksum of a request or an answer of Cloud KMS is wrong")

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
