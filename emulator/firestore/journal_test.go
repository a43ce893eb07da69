package firestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"parley.internal/emulator/firestore"
	"parley.internal/emulator/wal/waltest"
)

// writerDir is the environment variable that makes a copy of the test binary write to a server on the directory until
// the copy is killed.
const writerDir = "FIRESTORE_TEST_WRITER_DIR"

// writeUntilKilled commits from several goroutines and prints the path of each document after the commit.
func writeUntilKilled(dir string) {
	// A low limit makes many compactions, so that the kill can come during a compaction.
	srv, err := firestore.New(firestore.WithDataDir(dir), firestore.WithCompactAt(32<<10))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := os.Setenv("FIRESTORE_EMULATOR_HOST", srv.Addr()); err != nil {
		panic(err)
	}
	ctx := context.Background()
	c, err := client.NewClient(ctx, "crash")
	if err != nil {
		panic(err)
	}
	var out sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				ref := c.Doc(fmt.Sprintf("run%d/%d-%d", os.Getpid(), w, i))
				err := c.RunTransaction(ctx, func(ctx context.Context, tx *client.Transaction) error {
					return errors.Join(
						tx.Set(ref, map[string]any{"i": i, "s": strings.Repeat("x", 300)}),
						tx.Set(ref.Collection("twin").Doc("t"), map[string]any{"i": i}))
				})
				if err != nil {
					panic(err)
				}
				out.Lock()
				fmt.Println(ref.Parent.ID + "/" + ref.ID)
				out.Unlock()
			}
		}()
	}
	select {} // until the process is killed
}

// killedWriter starts a writer on dir, kills it after some answers, and returns the documents of the answered commits.
func killedWriter(t *testing.T, dir string, answers int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerDir+"="+dir)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var answered []string
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // an incomplete line is no answer
		}
		answered = append(answered, strings.TrimSpace(line))
		if len(answered) == answers {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the writer ended by itself")
	}
	if len(answered) < answers {
		t.Fatalf("the writer died after %d answers", len(answered))
	}
	return answered
}

// open starts a server on dir. The caller must close the server.
func open(t testing.TB, dir string) (*firestore.Server, *backend) {
	t.Helper()
	srv, err := firestore.New(firestore.WithDataDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	return srv, connect(t, "ours", srv.Addr())
}

func TestEveryAnsweredCommitSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var answered []string
	for round := range 4 {
		answered = append(answered, killedWriter(t, dir, 200+150*round)...)
	}
	srv, b := open(t, dir)
	defer srv.Close()
	root := "projects/crash/databases/(default)/documents/"
	for _, path := range answered {
		for _, name := range []string{root + path, root + path + "/twin/t"} {
			if _, err := b.raw.GetDocument(b.ctx(t), &pb.GetDocumentRequest{Name: name}); err != nil {
				t.Fatalf("%s was answered and is lost: %v", name, err)
			}
		}
	}
	// Each commit under way is complete or missing.
	resp := must[[]*pb.Document](t)(b.query(t, strings.TrimSuffix(root, "/"), &pb.StructuredQuery{
		From: []*pb.StructuredQuery_CollectionSelector{{CollectionId: "twin", AllDescendants: true}}}))
	for _, twin := range resp {
		if _, err := b.raw.GetDocument(b.ctx(t), &pb.GetDocumentRequest{Name: strings.TrimSuffix(twin.Name, "/twin/t")}); err != nil {
			t.Fatalf("half a commit is there: %v", err)
		}
	}
	t.Logf("%d commits were answered, %d are there", len(answered), len(resp))
}

func TestARestartBringsBackDocumentsAndTimes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, b := open(t, dir)
	name := b.root + "/c/d"
	b.mustCommit(t, update(name, fields{"a": integer(1)}), update(b.root+"/c/gone", nil))
	b.mustCommit(t, update(name, fields{"b": vector(1, 2)}, "b"))
	last := b.mustCommit(t, remove(b.root+"/c/gone")).CommitTime.AsTime()
	before := must[*pb.Document](t)(b.get(t, "c/d"))
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	// With a clock in the past, commit times must still increase.
	srv, err := firestore.New(firestore.WithDataDir(dir), firestore.WithClock(func() time.Time { return time.Unix(0, 0) }))
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	again := connect(t, "ours", srv.Addr())
	after := must[*pb.Document](t)(again.raw.GetDocument(again.ctx(t), &pb.GetDocumentRequest{Name: name}))
	if diff := cmp.Diff(before, after, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	_, err = again.raw.GetDocument(again.ctx(t), &pb.GetDocumentRequest{Name: b.root + "/c/gone"})
	wantCode(t, err, codes.NotFound)
	if at := again.mustCommit(t, update(again.root+"/c/d", nil)).CommitTime.AsTime(); !at.After(last) {
		t.Errorf("a commit after the restart has the time %v, one before it %v", at, last)
	}
}

func TestATornTailIsCutOff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		tear func(log []byte) []byte
		want string // the documents that are left
	}{
		{"the last record lacks a byte", func(log []byte) []byte { return log[:len(log)-1] }, "a b"},
		{"a few bytes of a header", func(log []byte) []byte { return append(log, 1, 2, 3) }, "a b c"},
		{"a header without a payload", func(log []byte) []byte { return append(log, 200, 0, 0, 0, 1, 2, 3, 4, 5) }, "a b c"},
		{"the last record has a wrong byte", func(log []byte) []byte { log[len(log)-1] ^= 1; return log }, "a b"},
		{"zeros", func(log []byte) []byte { return append(log, make([]byte, 100)...) }, "a b c"},
		{"nothing is left", func(log []byte) []byte { return nil }, ""},
	} {
		dir := t.TempDir()
		srv, b := open(t, dir)
		for _, id := range []string{"a", "b", "c"} {
			b.mustCommit(t, update(b.root+"/c/"+id, fields{"v": str(id)}))
		}
		if err := srv.Close(); err != nil {
			t.Fatal(err)
		}
		rewrite(t, dir, c.tear)
		// The second round starts on the directory that the first round repaired and wrote to.
		for round := range 2 {
			srv, again := open(t, dir)
			if round == 0 {
				again.mustCommit(t, update(again.root+"/c/new", nil))
			}
			if got := ids(again.query(t, b.root, from("c"))); got != c.want {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
			if err := srv.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestDamageBeforeTheTailIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, b := open(t, dir)
	for range 3 {
		b.mustCommit(t, update(b.root+"/c/d", fields{"at": instant(time.Now())}))
	}
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	rewrite(t, dir, func(log []byte) []byte { log[40] ^= 1; return log })
	if srv, err := firestore.New(firestore.WithDataDir(dir)); err == nil {
		srv.Close()
		t.Error("the server started on a damaged log")
	}
}

func rewrite(t *testing.T, dir string, change func([]byte) []byte) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "log-*"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	data := must[[]byte](t)(os.ReadFile(logs[0]))
	if err := os.WriteFile(logs[0], change(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestBrokenDiskFailsEveryLaterCommitAndNoRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, b := open(t, dir)
	b.mustCommit(t, update(b.root+"/c/d", nil))
	waltest.BreakLog(t, dir)
	for range 2 {
		_, err := b.commit(t, update(b.root+"/c/lost", nil))
		wantCode(t, err, codes.Internal)
	}
	if got := ids(b.query(t, b.root, from("c"))); got != "d" {
		t.Errorf("got %q, want d", got)
	}
	if err := srv.Close(); err == nil {
		t.Error("close has no error")
	}
}

func TestADirectoryBelongsToOneServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, _ := open(t, dir)
	if second, err := firestore.New(firestore.WithDataDir(dir)); err == nil {
		second.Close()
		t.Error("a second server started on the same directory")
	}
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	srv, _ = open(t, dir)
	srv.Close()
}
