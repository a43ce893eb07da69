package store_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// oldUser and oldSeen are the user's document in a revision without recentPacked.
type oldUser struct {
	Provider            string    `firestore:"provider"`
	DisplayName         string    `firestore:"displayName,omitempty"`
	FirstSeenAt         time.Time `firestore:"firstSeenAt,omitempty"`
	LastSeenAt          time.Time `firestore:"lastSeenAt,omitempty"`
	MessageCountAllTime int64     `firestore:"messageCountAllTime"`
	Recent              []oldSeen `firestore:"recent,omitempty"`
}

type oldSeen struct {
	ID    string   `firestore:"id"`
	Tags  []string `firestore:"tags"`
	Rules []string `firestore:"rules,omitempty"`
}

const maxRecent = 64

// keepLast drops the oldest events of a full list.
func keepLast[T any](recent []T) []T { return recent[max(0, len(recent)-maxRecent):] }

// countOld counts events as a revision without recentPacked does, in one write.
func countOld(t *testing.T, client *firestore.Client, id identity.UserID, correlationIDs []string) {
	t.Helper()
	doc := client.Collection("users").Doc(id.String())
	snaps, err := client.GetAll(t.Context(), []*firestore.DocumentRef{doc})
	if err != nil {
		t.Fatal(err)
	}
	var u oldUser
	if snaps[0].Exists() {
		if err := snaps[0].DataTo(&u); err != nil {
			t.Fatal(err)
		}
	}
	for _, correlationID := range correlationIDs {
		hash := store.NewSeenID(correlationID)
		seen := hex.EncodeToString(hash[:])
		if slices.ContainsFunc(u.Recent, func(s oldSeen) bool { return s.ID == seen }) {
			continue
		}
		u.MessageCountAllTime++
		u.Recent = keepLast(append(u.Recent, oldSeen{ID: seen, Tags: []string{"tag of " + correlationID}}))
	}
	if !snaps[0].Exists() {
		_, err = doc.Create(t.Context(), u)
	} else {
		_, err = doc.Update(t.Context(), []firestore.Update{{Path: "messageCountAllTime", Value: u.MessageCountAllTime}, {Path: "recent", Value: u.Recent}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// countNew counts events as this revision does, in one write if one is new, and checks the tags of events counted before.
func countNew(t *testing.T, s *store.Store, id identity.UserID, correlationIDs []string) {
	t.Helper()
	u, v, err := s.User(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	changed := false
	for _, correlationID := range correlationIDs {
		seen := store.NewSeenID(correlationID)
		if i := slices.IndexFunc(u.Recent, func(s store.Seen) bool { return s.ID == seen }); i >= 0 {
			if tags := u.Recent[i].Tags; !slices.Equal(tags, []string{"tag of " + correlationID}) {
				t.Errorf("%s: tags %q of a redelivery", correlationID, tags)
			}
			continue
		}
		changed = true
		u.MessageCountAllTime++
		u.Recent = keepLast(append(u.Recent, store.Seen{ID: seen, Tags: []string{"tag of " + correlationID}}))
	}
	if !changed {
		return
	}
	if err := s.PutUser(t.Context(), id, u, v); err != nil {
		t.Fatal(err)
	}
}

// Each history is a list of handled events: the revision (old or new) and the event's id, or a range of ids that the
// revision handles in one write. A repeated id is a redelivery.
func TestRedeliveryCountsOnceWithTwoRevisions(t *testing.T) {
	histories := map[string]struct {
		history string
		want    int64
	}{
		"old then new":                      {"old:a new:a", 1},
		"new then old":                      {"new:a old:a", 1},
		"new twice":                         {"new:a new:a", 1},
		"new, old, new":                     {"new:a old:b new:c new:b new:a", 3},
		"old, new, old":                     {"old:a new:b old:c old:b old:a", 3},
		"new, old, new, redelivered to all": {"new:a old:b new:c old:a old:b old:c new:a new:b new:c", 3},
		"old document packed":               {"old:0-63 new:64 new:1-64 old:61-64", 65},
		"packed document redelivered":       {"new:0-63 new:0-63 old:60-63", 64},
		"rolled back and forth":             {"new:0-9 old:10-19 new:0-19 new:20 new:0-20 old:17-20", 21},
		"more than a list between":          {"new:0-63 old:64-163 new:101-163 new:164 new:101-164", 165},
	}
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s, client := open(t, env)
		n := 0
		for name, tt := range histories {
			n++
			id := user(t, fmt.Sprintf("twitch:%d", n))
			for _, step := range strings.Fields(tt.history) {
				revision, events, _ := strings.Cut(step, ":")
				correlationIDs := []string{events}
				var first, last int
				if _, err := fmt.Sscanf(events, "%d-%d", &first, &last); err == nil {
					correlationIDs = nil
					for i := first; i <= last; i++ {
						correlationIDs = append(correlationIDs, fmt.Sprint(i))
					}
				}
				if revision == "old" {
					countOld(t, client, id, correlationIDs)
				} else {
					countNew(t, s, id, correlationIDs)
				}
			}
			u, _, err := s.User(t.Context(), id)
			if err != nil || u.MessageCountAllTime != tt.want {
				t.Errorf("%s: counted %d, %v; want %d", name, u.MessageCountAllTime, err, tt.want)
			}
		}
	})
}

// loopback replaces Firestore's connection: it encodes a written document as the wire does, and decodes the same
// bytes for every read. So a benchmark measures the client's conversion and the wire form, and no server.
type loopback struct {
	grpc.ClientStream
	document []byte
	reading  bool
}

func (l *loopback) client(b *testing.B) *firestore.Client {
	conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(_ context.Context, _ string, req, reply any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
			written := req.(*firestorepb.CommitRequest).Writes[0].GetUpdate()
			written.CreateTime, written.UpdateTime = timestamppb.New(time.Unix(1, 0)), timestamppb.New(time.Unix(1, 0))
			data, err := proto.Marshal(written)
			l.document = data
			proto.Merge(reply.(proto.Message), &firestorepb.CommitResponse{WriteResults: []*firestorepb.WriteResult{{UpdateTime: written.UpdateTime}}, CommitTime: written.UpdateTime})
			return err
		}),
		grpc.WithStreamInterceptor(func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, grpc.Streamer, ...grpc.CallOption) (grpc.ClientStream, error) {
			l.reading = true
			return l, nil
		}))
	if err != nil {
		b.Fatal(err)
	}
	client, err := firestore.NewClient(b.Context(), "p", option.WithGRPCConn(conn))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { client.Close() })
	return client
}

func (l *loopback) SendMsg(any) error            { return nil }
func (l *loopback) CloseSend() error             { return nil }
func (l *loopback) Header() (metadata.MD, error) { return nil, nil }

func (l *loopback) RecvMsg(m any) error {
	if !l.reading {
		return io.EOF
	}
	l.reading = false
	var found firestorepb.Document
	if err := proto.Unmarshal(l.document, &found); err != nil {
		return err
	}
	r := m.(*firestorepb.BatchGetDocumentsResponse)
	r.Result, r.ReadTime = &firestorepb.BatchGetDocumentsResponse_Found{Found: &found}, found.UpdateTime
	return nil
}

// BenchmarkUser measures one write and one read of the document of a user with 64 counted events: the cost of each chat
// message apart from the network.
func BenchmarkUser(b *testing.B) {
	id, err := identity.Parse("twitch:1")
	if err != nil {
		b.Fatal(err)
	}
	at := time.Unix(1_800_000_000, 0).UTC()
	tags := []string{"PROVIDER_TWITCH", "RETURNING_USER"}
	b.Run("form=maps", func(b *testing.B) {
		u := oldUser{Provider: "twitch", DisplayName: "Ada", FirstSeenAt: at, LastSeenAt: at, MessageCountAllTime: 900}
		for i := range maxRecent {
			hash := store.NewSeenID(fmt.Sprint(i))
			u.Recent = append(u.Recent, oldSeen{ID: hex.EncodeToString(hash[:]), Tags: tags})
		}
		l := &loopback{}
		doc := l.client(b).Collection("users").Doc(id.String())
		b.ReportAllocs()
		for b.Loop() {
			if _, err := doc.Set(b.Context(), u); err != nil {
				b.Fatal(err)
			}
			snap, err := doc.Get(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			var got oldUser
			if err := snap.DataTo(&got); err != nil || len(got.Recent) != maxRecent {
				b.Fatalf("%d events, %v", len(got.Recent), err)
			}
		}
		b.ReportMetric(float64(len(l.document)), "document-bytes")
	})
	b.Run("form=packed", func(b *testing.B) {
		u := store.User{Provider: "twitch", DisplayName: "Ada", FirstSeenAt: at, LastSeenAt: at, MessageCountAllTime: 900}
		for i := range maxRecent {
			u.Recent = append(u.Recent, store.Seen{ID: store.NewSeenID(fmt.Sprint(i)), Tags: tags})
		}
		l := &loopback{}
		s := store.New(l.client(b))
		b.ReportAllocs()
		for b.Loop() {
			if err := s.PutUser(b.Context(), id, u, store.Version{}); err != nil {
				b.Fatal(err)
			}
			got, _, err := s.User(b.Context(), id)
			if err != nil || len(got.Recent) != maxRecent {
				b.Fatalf("%d events, %v", len(got.Recent), err)
			}
		}
		b.ReportMetric(float64(len(l.document)), "document-bytes")
	})
}
