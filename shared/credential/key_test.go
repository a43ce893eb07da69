package credential_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"parley.internal/shared/credential"
)

func TestConcurrentProcessesGetOneFileKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "key.json")
	keys := make([]credential.Key, 10)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			var err error
			if keys[i], err = credential.OpenKey(t.Context(), "file:"+path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	sealed, err := keys[0].EncryptWithContext(t.Context(), []byte("text"), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		if got, err := k.DecryptWithContext(t.Context(), sealed, []byte("a")); err != nil || string(got) != "text" {
			t.Errorf("key %d: %q, %v; concurrent callers must get the same key", i, got, err)
		}
	}
	if _, err := keys[1].DecryptWithContext(t.Context(), sealed, []byte("b")); err == nil {
		t.Error("opened with other associated data")
	}
	again, err := keys[0].EncryptWithContext(t.Context(), []byte("text"), []byte("a"))
	if err != nil || bytes.Equal(sealed, again) {
		t.Errorf("the same text is sealed the same twice (%v)", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left beside the key: %v, %v", entries, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := credential.OpenKey(t.Context(), "file:"+path); err == nil {
		t.Error("OpenKey accepted a file with wide permissions")
	}
}

func TestOpenKeyRefusesBadURIs(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, uri := range []string{"", "file:", "aws-kms://x", broken, "file:" + broken, "file:" + t.TempDir()} {
		if _, err := credential.OpenKey(t.Context(), uri); err == nil {
			t.Errorf("OpenKey(%q) succeeded", uri)
		}
	}
}

// keyServer is a Cloud KMS for encryption: it inverts every byte, and checks the key's name.
type keyServer struct {
	kmspb.UnimplementedKeyManagementServiceServer
	name string
	mu   sync.Mutex
	seen [][]byte
}

var errName = errors.New("no such key")

func turned(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = ^c
	}
	return out
}

func checksum(b []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
}

func (s *keyServer) Encrypt(_ context.Context, r *kmspb.EncryptRequest) (*kmspb.EncryptResponse, error) {
	if r.Name != s.name {
		return nil, errName
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, r.Plaintext)
	out := turned(r.Plaintext)
	return &kmspb.EncryptResponse{
		Name: s.name + "/cryptoKeyVersions/1", Ciphertext: out, CiphertextCrc32C: checksum(out),
		VerifiedPlaintextCrc32C: true, VerifiedAdditionalAuthenticatedDataCrc32C: true,
	}, nil
}

func (s *keyServer) Decrypt(_ context.Context, r *kmspb.DecryptRequest) (*kmspb.DecryptResponse, error) {
	if r.Name != s.name {
		return nil, errName
	}
	out := turned(r.Ciphertext)
	return &kmspb.DecryptResponse{Plaintext: out, PlaintextCrc32C: checksum(out)}, nil
}

func TestCloudKMSEncryptsDataKeysOnly(t *testing.T) {
	const name = "projects/p/locations/global/keyRings/parley/cryptoKeys/credentials"
	fake := &keyServer{name: name}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	kmspb.RegisterKeyManagementServiceServer(server, fake)
	go server.Serve(listener) // ends with Stop
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })

	key, err := credential.OpenKey(t.Context(), "gcp-kms://"+name, option.WithGRPCConn(conn))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := key.EncryptWithContext(t.Context(), []byte("a very secret text"), []byte("twitch:1"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.DecryptWithContext(t.Context(), sealed, []byte("twitch:1")); err != nil || string(got) != "a very secret text" {
		t.Errorf("opened: %q, %v", got, err)
	}
	if _, err := key.DecryptWithContext(t.Context(), sealed, []byte("twitch:2")); err == nil {
		t.Error("opened with other associated data")
	}
	if len(fake.seen) != 1 || bytes.Contains(fake.seen[0], []byte("secret text")) {
		t.Errorf("Cloud KMS saw %q; want a data key alone", fake.seen)
	}
}
