// Package schema has the arguments of the resources in Parley's Terraform configuration: names, nesting and types, and
// the flags required, optional and computed. google.json is extracted from version 6.50.0 of the google provider, and has
// only the used resources. archive.json is written by hand from the documentation of version 2.7 of the archive provider.
// The tests of packages check and extract cover the package.
package schema

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// To extract the google provider's schema again, after adding a resource to the configuration:
//
//	npm pack --pack-destination "$HOME" @cdktf/provider-google@16.12.1
//	go run ./terraform/check/schema/extract -dir terraform -out terraform/check/schema/google.json ~/cdktf-provider-google-16.12.1.tgz
var (
	//go:embed google.json
	google []byte
	//go:embed archive.json
	archive []byte
)

// Provider is the schema of a provider.
type Provider struct {
	Version     string            `json:"version"`
	Config      *Block            `json:"config"`
	Resources   map[string]*Block `json:"resources"`
	DataSources map[string]*Block `json:"dataSources"`
}

// Block is the schema of a resource, or of a nested block.
type Block struct {
	Attributes map[string]Attribute `json:"attributes,omitempty"`
	Blocks     map[string]Nested    `json:"blocks,omitempty"`
}

// Attribute is an argument, a computed value, or both.
type Attribute struct {
	Type     Type `json:"type"`
	Required bool `json:"required,omitempty"`
	Optional bool `json:"optional,omitempty"`
	Computed bool `json:"computed,omitempty"`
}

// Nested is a block type within a block.
type Nested struct {
	Nesting string `json:"nesting"`       // list, set or single
	Min     int64  `json:"min,omitempty"` // the minimum number of blocks
	Max     int64  `json:"max,omitempty"` // the maximum number of blocks; 0 for unlimited
	Block   *Block `json:"block"`
}

// Type is a type in Terraform's own notation: "string", ["list","string"], ["list",["object",{…}]].
type Type json.RawMessage

// MarshalJSON returns the notation.
func (t Type) MarshalJSON() ([]byte, error) { return t, nil }

// UnmarshalJSON copies the notation.
func (t *Type) UnmarshalJSON(data []byte) error {
	*t = bytes.Clone(data)
	return nil
}

// Value returns the parsed type. Each notation is parsed once.
func (t Type) Value() (tftypes.Type, error) {
	if cached, ok := parsedTypes.Load(string(t)); ok {
		return cached.(tftypes.Type), nil
	}
	typ, err := tftypes.ParseJSONType(json.RawMessage(t)) //lint:ignore SA1019 the notation has no other parser
	if err != nil {
		return nil, fmt.Errorf("type %s: %w", t, err)
	}
	parsedTypes.Store(string(t), typ)
	return typ, nil
}

// The caches: a fake provider needs the type of a block for every value of a request.
var (
	parsedTypes sync.Map // notation string → tftypes.Type
	blockTypes  sync.Map // *Block → tftypes.Object
)

// Google returns the schema of the google provider.
func Google() (*Provider, error) { return parse(google) }

// Archive returns the schema of the archive provider.
func Archive() (*Provider, error) { return parse(archive) }

func parse(data []byte) (*Provider, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	p := new(Provider)
	if err := dec.Decode(p); err != nil {
		return nil, fmt.Errorf("read a provider's schema: %w", err)
	}
	return p, nil
}

// Type returns the type of the block's values. A block must not change after the first call.
func (b *Block) Type() (tftypes.Object, error) {
	if cached, ok := blockTypes.Load(b); ok {
		return cached.(tftypes.Object), nil
	}
	types := map[string]tftypes.Type{}
	for name, a := range b.Attributes {
		t, err := a.Type.Value()
		if err != nil {
			return tftypes.Object{}, fmt.Errorf("%s: %w", name, err)
		}
		types[name] = t
	}
	for name, n := range b.Blocks {
		t, err := n.Block.Type()
		if err != nil {
			return tftypes.Object{}, fmt.Errorf("%s: %w", name, err)
		}
		switch n.Nesting {
		case "list":
			types[name] = tftypes.List{ElementType: t}
		case "set":
			types[name] = tftypes.Set{ElementType: t}
		case "single":
			types[name] = t
		default:
			return tftypes.Object{}, fmt.Errorf("%s: unknown nesting %q", name, n.Nesting)
		}
	}
	object := tftypes.Object{AttributeTypes: types}
	blockTypes.Store(b, object)
	return object, nil
}

// Protocol converts the block to the form of Terraform's plugin protocol.
func (b *Block) Protocol() (*tfprotov5.SchemaBlock, error) {
	out := &tfprotov5.SchemaBlock{}
	for _, name := range slices.Sorted(maps.Keys(b.Attributes)) {
		a := b.Attributes[name]
		t, err := a.Type.Value()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.Attributes = append(out.Attributes, &tfprotov5.SchemaAttribute{
			Name: name, Type: t, Required: a.Required, Optional: a.Optional, Computed: a.Computed,
		})
	}
	for _, name := range slices.Sorted(maps.Keys(b.Blocks)) {
		n := b.Blocks[name]
		block, err := n.Block.Protocol()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		nesting := map[string]tfprotov5.SchemaNestedBlockNestingMode{
			"list":   tfprotov5.SchemaNestedBlockNestingModeList,
			"set":    tfprotov5.SchemaNestedBlockNestingModeSet,
			"single": tfprotov5.SchemaNestedBlockNestingModeSingle,
		}[n.Nesting]
		out.BlockTypes = append(out.BlockTypes, &tfprotov5.SchemaNestedBlock{
			TypeName: name, Block: block, Nesting: nesting, MinItems: n.Min, MaxItems: n.Max,
		})
	}
	return out, nil
}
