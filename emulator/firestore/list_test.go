package firestore_test

import (
	"errors"
	"strings"
	"testing"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/api/iterator"
)

func TestListDocumentsPagesThroughACollection(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{
			"c/a": {"n": integer(3), "m": integer(1)}, "c/b": {"n": integer(2)}, "c/d": {"n": integer(1)},
			"c/c/s/x": {}, "c/e/s/x/t/y": {}, "c/b/s/x": {},
		})
		list := func(req *pb.ListDocumentsRequest) string {
			t.Helper()
			var pages []string
			for {
				req.Parent, req.CollectionId = b.root, "c"
				resp, err := b.raw.ListDocuments(b.ctx(t), req)
				if err != nil {
					return err.Error()
				}
				pages = append(pages, ids(resp.Documents, nil))
				for _, d := range resp.Documents {
					if req.Mask != nil && d.Fields["n"] != nil {
						pages = append(pages, "beyond the mask")
					}
				}
				if resp.NextPageToken == "" {
					return strings.Join(pages, "|")
				}
				req.PageToken = resp.NextPageToken
			}
		}
		mask := &pb.DocumentMask{FieldPaths: []string{"m"}}
		for _, c := range []struct {
			name string
			req  *pb.ListDocumentsRequest
			want string
		}{
			{"all", &pb.ListDocumentsRequest{}, "a b d"},
			{"in pages", &pb.ListDocumentsRequest{PageSize: 2}, "a b|d"},
			{"masked", &pb.ListDocumentsRequest{Mask: mask}, "a b d"},
			{"with missing", &pb.ListDocumentsRequest{ShowMissing: true}, "a b c d e"},
			{"with missing in pages", &pb.ListDocumentsRequest{ShowMissing: true, PageSize: 2}, "a b|c d|e"},
			{"ordered", &pb.ListDocumentsRequest{OrderBy: "n"}, "d b a"},
			{"ordered in pages, descending", &pb.ListDocumentsRequest{OrderBy: "n desc", PageSize: 2}, "a b|d"},
		} {
			if got := strings.TrimSuffix(list(c.req), "|"); got != b.expectString("list: "+c.name, c.want) {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
		}
	})
}

func TestCollectionsAreListed(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{"c/1/x/1": {}, "c/1/y/1/z/1": {}, "b/1": {}, "c/2": {}, "d/1/only/1": {}})
		list := func(it *client.CollectionIterator) string {
			t.Helper()
			var s []string
			for {
				c, err := it.Next()
				if errors.Is(err, iterator.Done) {
					return strings.Join(s, " ")
				}
				if err != nil {
					t.Fatal(err)
				}
				s = append(s, c.ID)
			}
		}
		if got := list(b.client.Collections(t.Context())); got != "b c d" {
			t.Errorf("at the root: %q", got)
		}
		if got := list(b.client.Doc("c/1").Collections(t.Context())); got != "x y" {
			t.Errorf("below a document: %q", got)
		}
		if got := list(b.client.Doc("c/none").Collections(t.Context())); got != "" {
			t.Errorf("below nothing: %q", got)
		}
		resp := must[*pb.ListCollectionIdsResponse](t)(b.raw.ListCollectionIds(b.ctx(t), &pb.ListCollectionIdsRequest{Parent: b.root, PageSize: 2}))
		rest := must[*pb.ListCollectionIdsResponse](t)(b.raw.ListCollectionIds(b.ctx(t), &pb.ListCollectionIdsRequest{Parent: b.root, PageSize: 2, PageToken: resp.NextPageToken}))
		if got := strings.Join(append(resp.CollectionIds, rest.CollectionIds...), " "); got != "b c d" || rest.NextPageToken != "" {
			t.Errorf("in pages: %q, then %q", got, rest.NextPageToken)
		}
	})
}
