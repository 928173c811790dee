/** Makes the types of the contract: node generate.js CONTRACT INTO */

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

const lines = [banner];
for (const [kind, folder] of [['Command', 'commands'], ['Event', 'events']] as const) {
  const types: string[] = [];
  await mkdir(path.join(into, folder), { recursive: true });
  const files = (await readdir(path.join(contract, folder))).filter((file) => file !== 'envelope.json').sort();
  for (const file of files) {
    const type = path.basename(file, '.json');
    const schema = plain(JSON.parse(await readFile(path.join(contract, folder, file), 'utf8'))) as JSONSchema;
    // Nothing that could be fetched; and the file's name is the type's.
    delete schema.$id;
    delete schema.title;
    const text = await compile(schema, name(type), { bannerComment: banner, style: { singleQuote: true } });
    await writeFile(path.join(into, folder, `${type}.ts`), text);
    lines.push(`import type { ${name(type)} as ${name(type)}${kind} } from './${folder}/${type}.js';`);
    types.push(`${name(type)}${kind}`);
  }
  lines.push(`export type ${kind} =\n  | ${types.join('\n  | ')};`);
}
await writeFile(path.join(into, 'index.ts'), `${lines.join('\n')}\n`);
