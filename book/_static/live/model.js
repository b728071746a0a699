// A sentence VAE in the page: `tutvae.load(folder)` without Python. It knows one architecture, that of
// the models in book/models and tutvae/pretrained: an LSTM encoder that reads both ways and pools by the maximum,
// and an LSTM decoder with tied weights, whose state, inputs and output the code joins.
//
// What tools/live.py writes calls tutvaeLive.receive; after that
//
//   const model = await tutvaeLive.load("rate-8");
//   model.decode(model.encode("Where is the station?").mean);
"use strict";

globalThis.tutvaeLive ??= {};

(() => {
  const folder = new URL(".", document.currentScript.src).href;
  const loading = new Map(); // name: promise of its model
  const received = new Map(); // name: model

  // Brings a model into the page, the first time by a <script>, which file:// allows, too.
  tutvaeLive.load = (name) => {
    if (!loading.has(name)) {
      const loaded = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `${folder}${name}.js`;
        script.onload = () => resolve(received.get(name));
        script.onerror = () => reject(new Error(`The model ${name} could not be loaded.`));
        document.head.append(script);
      });
      loading.set(name, loaded);
      loaded.catch(() => loading.delete(name)); // so that one can try again
    }
    return loading.get(name);
  };

  tutvaeLive.receive = (name, tokenizer, base64) => {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    received.set(name, new Model(bytes, new tutvaeLive.Tokenizer(tokenizer)));
  };

  class Model {
    constructor(bytes, tokenizer) {
      const { tensors, about } = readSafetensors(bytes);
      const layer = (name) => ({
        weight: tensors[`${name}.weight`],
        bias: tensors[`${name}.bias`].data,
      });
      this.tokenizer = tokenizer;
      this.maxLength = about.configuration.corpus.max_length; // tokens, marks included
      this.words = tensors["encoder.embedding.weight"];
      this.forward = new LSTM(tensors, "encoder.lstm");
      this.backward = new LSTM(tensors, "encoder.backward_lstm");
      this.mean = layer("encoder.mean");
      this.logVariance = layer("encoder.log_variance");
      this.codeToCell = layer("decoder.code_to_cell");
      this.writer = new LSTM(tensors, "decoder.lstm");
      this.toOutput = layer("decoder.to_output");
      this.written = tensors["decoder.embedding.weight"];
      this.output = { weight: this.written, bias: tensors["decoder.output.bias"].data };
    }

    // The posterior q(z|x) of a text: the means and scales of its code's numbers. Of a longer text
    // the first `maxLength` tokens are read.
    encode(text) {
      const ids = this.tokenizer.encode(text).slice(0, this.maxLength);
      const inputs = ids.map((id) => row(this.words, id));
      const forward = this.forward.largestStates(inputs);
      const features = concatenate(forward, this.backward.largestStates(inputs.reverse()));
      const scale = linear(this.logVariance, features).map((value) => Math.exp(0.5 * value));
      return { mean: linear(this.mean, features), scale };
    }

    // A text that the decoder writes at a code: the most probable token every time, or, at a
    // temperature above 0, a draw from p(token | code, tokens before).
    decode(code, temperature = 0) {
      const { pad, bos, eos } = this.tokenizer;
      let cell = linear(this.codeToCell, code);
      let hidden = cell.map(Math.tanh);
      const ids = [bos];
      while (ids.length <= this.maxLength && ids.at(-1) !== eos) {
        const input = concatenate(row(this.written, ids.at(-1)), code);
        [hidden, cell] = this.writer.step(input, hidden, cell);
        const logits = linear(this.output, linear(this.toOutput, concatenate(hidden, code)));
        logits[pad] = logits[bos] = -Infinity;
        ids.push(temperature > 0 ? draw(logits, temperature) : largest(logits));
      }
      return this.tokenizer.decode(ids.slice(1));
    }
  }

  class LSTM {
    constructor(tensors, name) {
      this.inputWeight = tensors[`${name}.weight_ih_l0`];
      this.hiddenWeight = tensors[`${name}.weight_hh_l0`];
      const hiddenBias = tensors[`${name}.bias_hh_l0`].data;
      this.bias = tensors[`${name}.bias_ih_l0`].data.map((value, i) => value + hiddenBias[i]);
      this.size = this.hiddenWeight.columns;
    }

    // Reads one input; PyTorch keeps the gates in the order input, forget, new, output.
    step(input, hidden, cell) {
      const gates = this.bias.slice();
      addProduct(this.inputWeight, input, gates);
      addProduct(this.hiddenWeight, hidden, gates);
      const H = this.size;
      const newCell = cell.map(
        (value, i) =>
          sigmoid(gates[H + i]) * value + sigmoid(gates[i]) * Math.tanh(gates[2 * H + i]),
      );
      const newHidden = newCell.map((value, i) => sigmoid(gates[3 * H + i]) * Math.tanh(value));
      return [newHidden, newCell];
    }

    // The largest value that each unit of the state takes while the inputs are read.
    largestStates(inputs) {
      let hidden = new Float32Array(this.size);
      let cell = new Float32Array(this.size);
      const largestYet = new Float32Array(this.size).fill(-Infinity);
      for (const input of inputs) {
        [hidden, cell] = this.step(input, hidden, cell);
        hidden.forEach((value, i) => (largestYet[i] = Math.max(largestYet[i], value)));
      }
      return largestYet;
    }
  }

  // Vectors are Float32Arrays; a tensor is { data, columns }, its rows one after the other.

  function row({ data, columns }, index) {
    return data.subarray(index * columns, (index + 1) * columns);
  }

  function concatenate(left, right) {
    const joined = new Float32Array(left.length + right.length);
    joined.set(left);
    joined.set(right, left.length);
    return joined;
  }

  function linear({ weight, bias }, input) {
    const result = bias.slice();
    addProduct(weight, input, result);
    return result;
  }

  // result += matrix · vector: nearly all of the time goes here.
  function addProduct({ data, columns }, vector, result) {
    for (let i = 0, at = 0; i < result.length; i++) {
      let sum = 0;
      for (let j = 0; j < columns; j++, at++) sum += data[at] * vector[j];
      result[i] += sum;
    }
  }

  function sigmoid(value) {
    return 1 / (1 + Math.exp(-value));
  }

  function largest(values) {
    return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
  }

  // The Gumbel-max trick: argmax of logits + Gumbel noise is a draw from their softmax.
  function draw(logits, temperature) {
    return largest(logits.map((logit) => logit / temperature - Math.log(-Math.log(Math.random()))));
  }

  // The tensors of a safetensors file with 8-bit matrices, and what the package wrote about them.
  function readSafetensors(bytes) {
    const size = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
    const { __metadata__: metadata, ...entries } = header;
    const tensors = {};
    for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(entries)) {
      const data = numbers(bytes.buffer, dtype, 8 + size + offsets[0], 8 + size + offsets[1]);
      tensors[name] = { data, columns: shape.at(-1) };
    }
    for (const [name, { data, columns }] of Object.entries(tensors)) {
      const scales = tensors[`${name}.scale`]; // one for each row
      scales?.data.forEach((scale, i) => {
        for (let j = i * columns; j < (i + 1) * columns; j++) data[j] *= scale;
      });
    }
    return { tensors, about: JSON.parse(metadata.tutvae) };
  }

  function numbers(buffer, dtype, start, end) {
    if (dtype === "I8") return Float32Array.from(new Int8Array(buffer, start, end - start));
    if (dtype !== "F16") throw new Error(`This page cannot read numbers of the type ${dtype}.`);
    const view = new DataView(buffer, start, end - start);
    return new Float32Array((end - start) / 2).map((_, i) => half(view.getUint16(2 * i, true)));
  }

  // A number of 16 bits: sign, 5 bits of exponent, 10 of fraction.
  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = (bits & 1023) / 1024;
    return sign * (exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14);
  }
})();
