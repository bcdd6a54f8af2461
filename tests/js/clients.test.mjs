// MQTT.js and Node-RED as their users run them.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';
import mqtt from 'mqtt';

const require = createRequire(import.meta.url);
const tcp = `mqtt://127.0.0.1:${process.env.TCP_PORT}`;
const web = `ws://127.0.0.1:${process.env.WS_PORT}/mqtt`;

for (const [transport, url] of [['tcp', tcp], ['websocket', web]]) {
  for (const protocolVersion of [4, 5]) {
    test(`MQTT.js over ${transport}, version ${protocolVersion}`, { timeout: 60000 }, async () => {
      const subscriber = await mqtt.connectAsync(url, { protocolVersion });
      const publisher = await mqtt.connectAsync(tcp, { protocolVersion: 5 });
      const topic = `js/${transport}/${protocolVersion}`;
      const granted = await subscriber.subscribeAsync(`${topic}/#`, { qos: 2 });
      assert.equal(granted[0].qos, 2);
      const got = [];
      const done = new Promise((resolve) => subscriber.on('message', (name, payload, packet) => {
        got.push([name, payload.toString(), packet.qos]);
        if (got.length === 4) resolve();
      }));
      for (const qos of [0, 1, 2]) await publisher.publishAsync(`${topic}/${qos}`, `message ${qos}`, { qos, properties: { userProperties: { k: 'v' } } });
      await publisher.publishAsync(`${topic}/big`, 'x'.repeat(300000), { qos: 1 });
      await done;
      got.sort();   // MQTT.js hands a QoS 2 message over at PUBREL, later messages may pass it
      assert.deepEqual(got.slice(0, 3), [0, 1, 2].map((q) => [`${topic}/${q}`, `message ${q}`, q]));
      assert.equal(got[3][1].length, 300000);
      await subscriber.endAsync();
      await publisher.endAsync();
    });
  }
}

test('MQTT.js: topic aliases, will and resumed session', { timeout: 60000 }, async () => {
  const watcher = await mqtt.connectAsync(web, { protocolVersion: 5 });
  await watcher.subscribeAsync('js/will');
  const will = once(watcher, 'message');
  const dying = await mqtt.connectAsync(tcp, { protocolVersion: 5, will: { topic: 'js/will', payload: 'gone', qos: 1 }, reconnectPeriod: 0 });
  dying.stream.destroy();
  assert.equal((await will)[1].toString(), 'gone');
  await watcher.endAsync();

  const options = { protocolVersion: 5, clientId: 'js-session', clean: false, properties: { sessionExpiryInterval: 60 } };
  let sleeper = await mqtt.connectAsync(tcp, options);
  await sleeper.subscribeAsync('js/queue', { qos: 1 });
  await sleeper.endAsync();
  const publisher = await mqtt.connectAsync(tcp, { protocolVersion: 5, autoAssignTopicAlias: true });
  for (let i = 0; i < 10; i += 1) await publisher.publishAsync('js/queue', String(i), { qos: 1 });
  sleeper = mqtt.connect(tcp, options);
  const order = [];
  await new Promise((resolve) => sleeper.on('message', (_, payload) => order.push(payload.toString()) === 10 && resolve()));
  assert.deepEqual(order, [...Array(10).keys()].map(String));
  await sleeper.endAsync();
  await publisher.endAsync();
});

test('Node-RED: mqtt in, change and mqtt out over TCP and WebSocket', { timeout: 120000 }, async () => {
  const RED = require('node-red');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'penstock-red-'));
  const brokerNode = (id, broker, port) => ({ id, type: 'mqtt-broker', name: '', broker, port: String(port), clientid: '', autoConnect: true, usetls: false,
    protocolVersion: '5', keepalive: '60', cleansession: true });
  const flows = [
    { id: 'f1', type: 'tab', label: 'test' },
    brokerNode('b1', '127.0.0.1', process.env.TCP_PORT),
    brokerNode('b2', web, process.env.WS_PORT),
    { id: 'n1', type: 'mqtt in', z: 'f1', topic: 'red/in/#', qos: '1', datatype: 'utf8', broker: 'b1', wires: [['n2']] },
    { id: 'n2', type: 'change', z: 'f1', rules: [{ t: 'set', p: 'payload', pt: 'msg', to: '"red:" & payload', tot: 'jsonata' },
      { t: 'set', p: 'topic', pt: 'msg', to: 'red/out', tot: 'str' }], wires: [['n3']] },
    { id: 'n3', type: 'mqtt out', z: 'f1', topic: '', qos: '1', retain: '', broker: 'b2', wires: [] },
  ];
  fs.writeFileSync(path.join(folder, 'flows.json'), JSON.stringify(flows));
  const server = http.createServer();
  RED.init(server, { userDir: folder, flowFile: 'flows.json', httpAdminRoot: false, httpNodeRoot: false, logging: { console: { level: 'off' } }, credentialSecret: false });
  await RED.start();
  const client = await mqtt.connectAsync(tcp, { protocolVersion: 5 });
  await client.subscribeAsync('red/out', { qos: 1 });
  const answer = once(client, 'message');
  // Node-RED connects in its own time: publish until the flow answers.
  const again = setInterval(() => client.publish('red/in/x', 'hello', { qos: 1 }), 200);
  const [, payload] = await answer;
  clearInterval(again);
  assert.equal(payload.toString(), 'red:hello');
  await client.endAsync();
  await RED.stop();
  server.close();
  fs.rmSync(folder, { recursive: true, force: true });
});
