package firestore

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Limits on names, from https://firebase.google.com/docs/firestore/quotas#limits.
const (
	maxIDSize             = 1500    // bytes
	maxNameSize           = 6 << 10 // bytes
	maxSubcollectionDepth = 100
)

// reservedID matches the ids and field names reserved for Firestore. numericID matches the exception: a document may
// have such an id.
var (
	reservedID = regexp.MustCompile(`^__(?s:.*)__$`)
	numericID  = regexp.MustCompile(`^__id-?[0-9]+__$`)
)

func isReserved(id string) bool {
	return strings.HasPrefix(id, "__") && reservedID.MatchString(id)
}

// A documentName is a parsed name of a document: projects/P/databases/D/documents/COLLECTION/ID/...
type documentName struct {
	full       string
	database   string // projects/P/databases/D
	collection string // full without the last id
	id         string
}

// parseDatabase checks the form projects/P/databases/D.
func parseDatabase(s string) (string, error) {
	database, rest, err := cutDatabase(s)
	if err != nil {
		return "", err
	}
	if rest != "" {
		return "", fmt.Errorf("%q is not the name of a database", s)
	}
	return database, nil
}

// cutDatabase splits s after projects/P/databases/D.
func cutDatabase(s string) (database, rest string, err error) {
	tail, isProject := strings.CutPrefix(s, "projects/")
	project, tail, _ := strings.Cut(tail, "/")
	tail, isDatabase := strings.CutPrefix(tail, "databases/")
	id, rest, _ := strings.Cut(tail, "/")
	if !isProject || project == "" || !isDatabase || id == "" {
		return "", "", fmt.Errorf("resource name %q does not start with projects/{project}/databases/{database}", s)
	}
	return s[:len(s)-len(tail)+len(id)], rest, nil
}

// parseParent checks the name of a parent of collections: a document, or the root of a database,
// projects/P/databases/D/documents.
func parseParent(s string) (database string, err error) {
	database, rest, err := cutDatabase(s)
	if err != nil {
		return "", err
	}
	if rest == "documents" {
		return database, nil
	}
	if _, err := parseDocumentName(s); err != nil {
		return "", err
	}
	return database, nil
}

// parseDocumentName checks s against the documented limits.
func parseDocumentName(s string) (documentName, error) {
	database, rest, err := cutDatabase(s)
	if err != nil {
		return documentName{}, err
	}
	path, ok := strings.CutPrefix(rest, "documents/")
	if !ok {
		return documentName{}, fmt.Errorf("document name %q lacks \"/documents/\" after its database", s)
	}
	if len(path) > maxNameSize {
		return documentName{}, fmt.Errorf("the document name has %d bytes, more than the limit of %d", len(path), maxNameSize)
	}
	n := 0
	for id := range strings.SplitSeq(path, "/") {
		isCollection := n%2 == 0
		if err := checkID(id, isCollection); err != nil {
			return documentName{}, fmt.Errorf("document name %q: %w", s, err)
		}
		n++
	}
	if n%2 != 0 {
		return documentName{}, fmt.Errorf("document name %q has an odd number of segments: it names a collection", s)
	}
	if n/2 > maxSubcollectionDepth {
		return documentName{}, fmt.Errorf("the document is nested in more than %d collections", maxSubcollectionDepth)
	}
	slash := strings.LastIndexByte(s, '/')
	return documentName{full: s, database: database, collection: s[:slash], id: s[slash+1:]}, nil
}

func checkID(id string, ofCollection bool) error {
	switch {
	case id == "":
		return errors.New("an id is empty")
	case len(id) > maxIDSize:
		return fmt.Errorf("an id has %d bytes, more than the limit of %d", len(id), maxIDSize)
	case id == "." || id == "..":
		return fmt.Errorf("the id %q is not allowed", id)
	case !utf8.ValidString(id):
		return fmt.Errorf("the id %q is not valid UTF-8", id)
	case isReserved(id) && (ofCollection || !numericID.MatchString(id)):
		return fmt.Errorf("the id %q is reserved", id)
	}
	return nil
}

// relativePath returns the part of a document's name that counts in the document's size.
func relativePath(name string) string {
	if _, rest, err := cutDatabase(name); err == nil {
		return strings.TrimPrefix(rest, "documents/")
	}
	return name
}

// compareNames orders names by segments. Documents below a document follow directly: a/b, then a/b/c/d, then a/b!.
func compareNames(a, b string) int {
	for {
		sa, restA, moreA := strings.Cut(a, "/")
		sb, restB, moreB := strings.Cut(b, "/")
		if c := compareIDs(sa, sb); c != 0 {
			return c
		}
		switch {
		case !moreA && !moreB:
			return 0
		case !moreA:
			return -1
		case !moreB:
			return 1
		}
		a, b = restA, restB
	}
}

// compareIDs orders ids by bytes. Numeric ids (__id7__) come first, by number.
func compareIDs(a, b string) int {
	if strings.HasPrefix(a, "__id") || strings.HasPrefix(b, "__id") {
		na, nb := numericID.MatchString(a), numericID.MatchString(b)
		switch {
		case na && nb:
			return compareNumericIDs(a, b)
		case na:
			return -1
		case nb:
			return 1
		}
	}
	return strings.Compare(a, b)
}

func compareNumericIDs(a, b string) int {
	a, b = a[len("__id"):len(a)-2], b[len("__id"):len(b)-2]
	negative := strings.HasPrefix(a, "-")
	if negative != strings.HasPrefix(b, "-") {
		if negative {
			return -1
		}
		return 1
	}
	if negative {
		a, b = b[1:], a[1:]
	}
	ta, tb := strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(ta) != len(tb) {
		return len(ta) - len(tb)
	}
	if c := strings.Compare(ta, tb); c != 0 {
		return c
	}
	// Different spellings of one number stay different ids.
	return len(a) - len(b)
}

// A fieldPath leads to a field of a document through the maps around it.
type fieldPath []string

// nameField stands for a document's own name in queries and masks.
const nameField = "__name__"

func (p fieldPath) isName() bool { return len(p) == 1 && p[0] == nameField }

// String returns the path in the form that parseFieldPath reads.
func (p fieldPath) String() string {
	var b strings.Builder
	for i, name := range p {
		if i > 0 {
			b.WriteByte('.')
		}
		if isSimpleFieldName(name) {
			b.WriteString(name)
			continue
		}
		b.WriteByte('`')
		b.WriteString(strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name))
		b.WriteByte('`')
	}
	return b.String()
}

func isSimpleFieldName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// parseFieldPath reads dot-separated names, each simple or in backquotes with
// a backslash as escape:
// https://firebase.google.com/docs/firestore/quotas#limits, "Constraints on field paths".
func parseFieldPath(s string) (fieldPath, error) {
	if len(s) > maxFieldNameSize {
		return nil, fmt.Errorf("the field path has %d bytes, more than the limit of %d", len(s), maxFieldNameSize)
	}
	var path fieldPath
	for rest := s; ; {
		name, tail, err := cutFieldName(rest)
		if err != nil {
			return nil, fmt.Errorf("invalid property path %q: %w", s, err)
		}
		path = append(path, name)
		if tail == "" {
			return path, nil
		}
		if tail[0] != '.' {
			return nil, fmt.Errorf("invalid property path %q: a dot must follow a name", s)
		}
		rest = tail[1:]
	}
}

func cutFieldName(s string) (name, rest string, err error) {
	if !strings.HasPrefix(s, "`") {
		end := strings.IndexByte(s, '.')
		if end < 0 {
			end = len(s)
		}
		if !isSimpleFieldName(s[:end]) {
			return "", "", fmt.Errorf("the name %q needs backquotes", s[:end])
		}
		return s[:end], s[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '`':
			if b.Len() == 0 {
				return "", "", errors.New("a name is empty")
			}
			return b.String(), s[i+1:], nil
		case '\\':
			i++
			if i == len(s) {
				return "", "", errors.New("nothing follows a backslash")
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", errors.New("a backquote is not closed")
}
