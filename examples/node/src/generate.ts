/** Makes the types of the contract: node generate.js CONTRACT INTO */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { compile, type JSONSchema } from 'json-schema-to-typescript';

const [contract, into] = process.argv.slice(2);
if (!contract || !into) throw new Error('usage: node generate.js CONTRACT INTO');

const banner = '// Made of the contract by `npm run generate`; not to be edited.';
const name = (type: string) => type.replace(/(^|[._])(\w)/g, (_found, _before, letter: string) => letter.toUpperCase());

/** Without what narrows members that are there already: the compiler of types would forget these. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  const narrowing = 'properties' in value ? ['anyOf', 'oneOf', 'allOf', 'if', 'then', 'else', 'not'] : [];
  const kept = Object.entries(value).filter(([key]) => !narrowing.includes(key));
  return Object.fromEntries(kept.map(([key, inner]) => [key, plain(inner)]));
}

/** The types of a folder's messages in one file, which all refer to the same definitions. */
async function generate(folder: string, union: string): Promise<void> {
  const definitions: Record<string, JSONSchema> = {};
  const messages: string[] = [];
  const files = (await readdir(path.join(contract!, folder))).filter((file) => file !== 'envelope.json').sort();
  for (const file of files) {
    const text = await readFile(path.join(contract!, folder, file), 'utf8');
    // Its address is none that could be fetched, and its title would be the type's name.
    const whole = JSON.parse(text);
    const { $id, title, $defs, ...message } = plain(whole) as JSONSchema;
    // What may come in base64 is written as data here.
    if (whole.else?.required) message.required = [...(message.required as string[]), ...whole.else.required];
    delete message.properties?.data_base64;
    const type = name(path.basename(file, '.json'));
    const defines = { ...($defs as Record<string, JSONSchema> | undefined), [type]: message };
    for (const [defined, schema] of Object.entries(defines)) {
      // They are told apart by their names alone.
      if (defined in definitions) assert.deepEqual(schema, definitions[defined], `${file}: ${defined}`);
      definitions[defined] = schema;
    }
    messages.push(type);
  }
  const any = { $defs: definitions, anyOf: messages.map((type) => ({ $ref: `#/$defs/${type}` })) };
  const text = await compile(any, union, { bannerComment: banner, style: { singleQuote: true } });
  await writeFile(path.join(into!, `${folder}.ts`), text);
}

await mkdir(into, { recursive: true });
await generate('commands', 'Command');
await generate('events', 'Event');
